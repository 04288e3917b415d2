"""The class-conditional latent diffusion baseline: an autoencoder, then a denoiser of its latents."""
