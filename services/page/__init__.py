"""Page: serves the built files of the web page through the gateway. It owns nothing but `dist/`."""
