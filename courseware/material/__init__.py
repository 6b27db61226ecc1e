"""Texts, data and models for the chapters: the plays, invented people, reference models with our weights."""
