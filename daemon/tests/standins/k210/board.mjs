// A K210 board's processor: MicroPython's WebAssembly build with the shims, on two descriptors of the line process.
// usage: node board.mjs <micropython.mjs> <uart fd> <call fd> <directory of shims>...
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [, , mpPath, uartText, callText, ...directories] = process.argv;
const uart = Number(uartText);
const rpc = Number(callText);
const { loadMicroPython } = await import(pathToFileURL(mpPath).href);

const cell = new Int32Array(new SharedArrayBuffer(4));
const rest = (ms) => Atomics.wait(cell, 0, 0, ms);
const chunk = Buffer.alloc(4096);
let ring = [];
let room = 2048;
let running = false;

function readSome(fd, buffer, want) {
  try {
    const n = fs.readSync(fd, buffer, 0, want);
    if (n === 0) process.exit(0); // the line process has gone
    return n;
  } catch (e) {
    if (e.code === 'EAGAIN') return 0;
    process.exit(0);
  }
}

function writeAll(fd, bytes) {
  let at = 0;
  while (at < bytes.length) {
    try {
      at += fs.writeSync(fd, bytes, at);
    } catch (e) {
      if (e.code !== 'EAGAIN') process.exit(0);
      rest(1);
    }
  }
}

function pump() {
  for (;;) {
    const n = readSome(uart, chunk, chunk.length);
    if (!n) return;
    const interrupt = mp._module.ccall('mp_hal_get_interrupt_char', 'number', [], []);
    for (let i = 0; i < n; i++) {
      if (running && chunk[i] === interrupt) {
        mp._module.ccall('mp_sched_keyboard_interrupt', null, [], []);
      } else if (ring.length < room) {
        ring.push(chunk[i]); // else lost, as on the board
      }
    }
  }
}

const heap = {
  read(address, n) {
    const out = Buffer.alloc(n);
    for (let i = 0; i < n; i++) out[i] = mp._module.getValue(address + i, 'i8');
    return out;
  },
  write(address, bytes) {
    for (let i = 0; i < bytes.length; i++) mp._module.setValue(address + i, bytes[i], 'i8');
  },
};

function exactly(n) {
  const out = Buffer.alloc(n);
  let at = 0;
  while (at < n) {
    const part = Buffer.alloc(n - at);
    const got = readSome(rpc, part, n - at);
    part.copy(out, at, 0, got);
    at += got;
    if (!got) rest(1);
  }
  return out;
}

let printed = [];
function flush() {
  if (!printed.length) return;
  writeAll(uart, Buffer.from(printed));
  printed = [];
}

let answer = Buffer.alloc(0);
const board = {
  any() { pump(); return ring.length; },
  take(address, n) {
    const part = ring.splice(0, n);
    heap.write(address, part);
    return part.length;
  },
  give(address, n) { flush(); writeAll(uart, heap.read(address, n)); },
  init(rx) { room = rx; ring = []; },
  call(address, n) {
    flush();
    const head = Buffer.alloc(4);
    head.writeUInt32LE(n);
    writeAll(rpc, Buffer.concat([head, heap.read(address, n)]));
    answer = exactly(exactly(4).readUInt32LE());
    return answer.length;
  },
  result(address) { heap.write(address, answer); },
  sleep(ms) {
    flush();
    const end = performance.now() + ms;
    do { pump(); rest(Math.min(2, Math.max(0, end - performance.now()))); } while (performance.now() < end);
  },
};

const mp = await loadMicroPython({
  heapsize: 512 * 1024,
  stdout: (data) => {
    printed.push(...data);
    if (printed.length > 200 || data[0] === 10) { flush(); if (running) pump(); }
  },
  linebuffer: false,
});
mp.registerJsModule('_board', board);
mp.FS.mkdir('/shims');
for (const directory of directories) {
  for (const name of fs.readdirSync(directory)) {
    if (name.endsWith('.py')) mp.FS.writeFile(`/shims/${name}`, fs.readFileSync(path.join(directory, name)));
  }
}
mp.runPython("import sys\nsys.path.insert(0, '/shims')\nimport start, boot\nboot.text()");
running = true;
try {
  mp.runPython('source = boot.main()\nif source: exec(source)');
} catch (e) {
  printed.push(...Buffer.from(`${e.message}\r\n`));
}
running = false;
mp.replInit();
flush();
for (;;) {
  pump();
  if (!ring.length) { rest(2); continue; }
  const c = ring.shift();
  running = c === 4 || c === 13;
  const end = mp.replProcessChar(c);
  running = false;
  flush();
  if (end) { // Ctrl-D: soft reset
    writeAll(uart, Buffer.from('[MaixPy]: soft reboot\r\n'));
    process.exit(10);
  }
}
