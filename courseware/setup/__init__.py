"""Called by make and CI: the environment, the doctor, the tests, running notebooks."""
