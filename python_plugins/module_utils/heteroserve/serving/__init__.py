"""Cells as Ray Serve and KubeRay run them: their objects, what they answer, what is wrong with them."""
