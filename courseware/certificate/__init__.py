"""`make certificate`: what a learner has built, proved again from a clean copy of their work."""
