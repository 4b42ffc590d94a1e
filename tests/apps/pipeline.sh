#!/bin/bash
# A generator in a subshell, sort and awk: the sum, the extremes and a running check of the order.
# Works in rounds of 200 numbers until the file `stop` is there.
set -euo pipefail
cd "$1"
(
    rounds=0
    while [ ! -e stop ]; do
        for ((i = 0; i < 200; i++)); do
            n=$((rounds * 200 + i))
            echo "$(((n * 7919) % 1000003)) line-$n"
        done
        rounds=$((rounds + 1))
        echo "$rounds" >progress.new
        mv progress.new progress
        sleep 0.02
    done
    echo "$(expr 1000003 + "$(cat progress)") rounds"
) | sort -n | awk '
    $1 < last { bad++ }
    { last = $1 }
    $2 == "rounds" { rounds = $1 - 1000003; next }
    { count++; sum += $1; if ($1 > top) top = $1 }
    END { printf "%d %d %d %d %d\n", rounds, count, sum, top, bad }
' >result.new
mv result.new result
