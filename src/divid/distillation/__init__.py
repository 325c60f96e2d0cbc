"""Few-step students: a trained model's decoder, taught to give in one to four steps what its teacher needs more for."""
