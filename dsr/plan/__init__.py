"""`dsr plan`: predict where a model goes and how fast it is, or list the models that would run."""
