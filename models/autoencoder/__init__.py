"""The variational autoencoder (VAE) of Stable Diffusion, and its form with a temporal decoder."""
