"""What a trained model does on clips that training never saw."""
