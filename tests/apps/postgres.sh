#!/bin/bash
# A database server and one client session of it. The session reads its commands from the FIFO `commands`
# (open for reading and writing, so that it never ends), the answers go to files that the commands name.
set -euo pipefail
cd "$1"
export PGDATA=$1/data PGHOST=$1 PGUSER=postgres PGDATABASE=postgres
postgres -k "$1" -c listen_addresses= -c fsync=off -c shared_buffers=16MB -c logging_collector=off >server.log 2>&1 </dev/null &
server=$!
until pg_isready -q; do sleep 0.05; done
psql -X -q -A -t -v ON_ERROR_STOP=1 <>commands >session.log 2>&1
kill -INT "$server"
wait "$server"
