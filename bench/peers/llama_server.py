"""Starts llama.cpp's server as a peer: python llama_server.py MODEL.gguf PORT PARALLEL CONTEXT (package xllamacpp)."""

import sys
import time

import xllamacpp

model, port, parallel, context = sys.argv[1], *map(int, sys.argv[2:5])
params = xllamacpp.CommonParams()
params.model.path = model
params.hostnames, params.port = ["127.0.0.1"], port
params.n_parallel, params.n_ctx, params.kv_unified = parallel, context, True
# Its default takes more threads than there are cores.
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
while True:
    time.sleep(1)
