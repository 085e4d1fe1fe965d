"""The payment and sign-in providers, signing for real, as a process of its own on loopback."""
