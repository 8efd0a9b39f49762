"""The classic torchvision model zoo, trained and measured with PyTorch Lightning recipes."""

__version__ = "0.1.0"
