"""What dsr keeps on disk: settings, conversations, measurements, predictions."""
