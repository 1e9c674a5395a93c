"""What an inventory may say."""
