"""Pictures in, uint8 tensors out; all randomness comes from the generator that is passed."""
