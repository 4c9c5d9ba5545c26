"""The style-based generator, the wavelet discriminator, and the layers that they share."""
