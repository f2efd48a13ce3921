"""Tests of `dsr.completion`."""
