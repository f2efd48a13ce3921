"""The loop that draws: scheduler, sequences, speculation, thinking, chat templates."""
