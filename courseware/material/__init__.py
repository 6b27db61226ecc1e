"""Texts, data and models for the chapters: the plays, invented people, questions, reference models with our weights."""
