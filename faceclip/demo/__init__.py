"""Run the pack in a real ComfyUI with one command: environment, server, API client and the demo itself.

Everything here works with the standard library alone, so that it can start before anything is installed;
only the websocket of the client needs aiohttp, which ComfyUI itself requires.
"""
