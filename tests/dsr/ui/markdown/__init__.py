"""Tests of `dsr.ui.markdown`."""
