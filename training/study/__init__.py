"""What pretraining contributes: controlled experiments on the user's own sentences."""
