// Timers and worker threads: each round sends numbers to four workers, which answer by message and
// count in shared memory; intervals and time-outs run meanwhile. Works until the file `stop` is there.
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');
const fs = require('node:fs');
const path = require('node:path');

const WORKERS = 4;
const NUMBERS = 500;

if (!isMainThread) {
  const counts = new Int32Array(workerData.shared);
  parentPort.on('message', ({ round, numbers }) => {
    let sum = 0;
    for (const n of numbers) {
      sum = (sum + n * n) % 1000003;
      Atomics.add(counts, workerData.index, 1);
    }
    Atomics.add(counts, WORKERS, 1);
    parentPort.postMessage({ round, index: workerData.index, sum });
  });
} else {
  const directory = process.argv[2];
  const shared = new SharedArrayBuffer(4 * (WORKERS + 1));
  const counts = new Int32Array(shared);
  const kept = new Map();
  let ticks = 0, timeouts = 0, rounds = 0, total = 0, answered = 0, last = process.hrtime.bigint(), backwards = 0;
  const interval = setInterval(() => {
    const now = process.hrtime.bigint();
    if (now < last) backwards++;
    last = now;
    ticks++;
  }, 10);
  const workers = [];
  const write = (name, text) => {
    fs.writeFileSync(path.join(directory, name + '.new'), text);
    fs.renameSync(path.join(directory, name + '.new'), path.join(directory, name));
  };
  const start = () => {
    answered = 0;
    workers.forEach((worker, index) => {
      const numbers = Array.from({ length: NUMBERS }, (_, i) => rounds * NUMBERS + i + index);
      worker.postMessage({ round: rounds, numbers });
    });
  };
  const finish = () => {
    clearInterval(interval);
    Promise.all(workers.map((worker) => worker.terminate())).then(() => {
      const each = Array.from(counts.slice(0, WORKERS)).join(' ');
      write('result', `${rounds} ${total} ${timeouts} ${ticks} ${backwards} ${kept.size} ${counts[WORKERS]} ${each}`);
    });
  };
  for (let index = 0; index < WORKERS; index++) {
    const worker = new Worker(__filename, { workerData: { shared, index } });
    worker.on('error', (error) => { write('result', 'FAIL: ' + error); process.exit(1); });
    worker.on('message', ({ round, sum }) => {
      if (round !== rounds) { write('result', `FAIL: round ${round}, not ${rounds}`); process.exit(1); }
      total = (total + sum) % 1000003;
      if (++answered < WORKERS) return;
      kept.set('round ' + rounds, { sum: total, text: 'x'.repeat(rounds % 100) });
      setTimeout(() => {
        timeouts++;
        rounds++;
        write('progress', String(rounds));
        if (fs.existsSync(path.join(directory, 'stop'))) finish(); else start();
      }, 5);
    });
    workers.push(worker);
  }
  start();
}
