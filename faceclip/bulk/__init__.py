"""Pictures by the hundred, made by ComfyUI servers: stopped, killed and resumed with nothing twice and nothing lost.

command: `python -m faceclip make`. jobs: what is to be made, as grid (identities x prompts x seeds) or rows (a table,
read line by line). graph: the workflow that they fill in, photos: the faces in it, problems: what is wrong with them.
cell: one picture, names: where it goes. work: who makes which. servers, ray_pool: the makers, servers_check: whether
they are the right ones. store, results: what was made, and the likest of each row. page: all of it to look at.
"""
