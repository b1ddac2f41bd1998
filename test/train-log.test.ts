// What a training run writes about itself: metrics.jsonl across restarts, lines, the bar, and TensorBoard's files, read by a reader of our own.
import { constants, existsSync } from 'node:fs';
import { appendFile, mkdtemp, open, readdir, readFile, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { MiniGptError } from '../lib/errors.js';
import type { RunFacts, StepEvent } from '../lib/train/events.js';
import { LogFile } from '../lib/train/log-file.js';
import { LineCutter } from '../lib/train/log-lines.js';
import { crc32c, maskedCrc32c } from '../lib/train/log-records.js';
import { openLog } from '../lib/train/log.js';
import { describeStep, duration } from '../lib/train/progress.js';
import { rejects } from './rejects.js';

interface Context {
  folder: string;
}
const test = suite<Context>('train log');
test.before.each(async (context) => {
  context.folder = await mkdtemp(join(tmpdir(), 'minigpt4-log-'));
});
test.after.each(({ folder }) => rm(folder, { recursive: true, force: true }));

const facts = (folder: string, more: Partial<RunFacts> = {}): RunFacts => ({
  jobName: 'stage1',
  folder,
  device: 'cpu',
  model: 'base.gguf',
  steps: 10,
  startStep: 0,
  datasets: [{ name: 'world', pairs: 6000 }],
  config: { run: { seed: 42n } },
  ...more,
});
const step = (number: number, more: Partial<StepEvent> = {}): StepEvent => ({
  kind: 'step',
  step: number,
  steps: 10,
  epoch: 1,
  loss: 1 / number,
  runningLoss: 0.5,
  gradientNorm: 0.25,
  rate: 1e-4,
  pairs: 4,
  tokens: 100,
  targets: 40,
  pairsPerSecond: 12.34,
  tokensPerSecond: 1500.4,
  seconds: 0.3,
  waiting: 0.02,
  vision: 0.4,
  eta: 4000,
  dataset: 'world',
  skipped: 0,
  ...more,
});
const skip = (name: string, number = 1) =>
  ({ kind: 'skip', step: number, dataset: 'world', name, reason: 'no picture' }) as const;

/** A stream that keeps what it is given; a terminal of 100 columns where `isTTY`. */
function collector(isTTY = false) {
  let text = '';
  const stream = new Writable({
    write(chunk: Buffer, _, done) {
      text += chunk.toString();
      done();
    },
  });
  Object.assign(stream, { isTTY, columns: 100 });
  return { stream, text: () => text };
}

async function lines(folder: string): Promise<Record<string, unknown>[]> {
  const text = await readFile(join(folder, 'metrics.jsonl'), 'utf8');
  assert.ok(text.endsWith('\n'));
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}
const kinds = (all: Record<string, unknown>[]) =>
  all.map((line) => (line['kind'] === 'run' ? 'run' : `${line['kind'] as string} ${line['step'] as number}`));

test('metrics.jsonl begins with the run, has every event with its time, and ends with how it ended', async ({
  folder,
}) => {
  const { stream } = collector();
  const log = await openLog(facts(folder), { folder, terminal: false, stream });
  for (let i = 1; i <= 10; i++) log.event(step(i));
  log.event({ kind: 'checkpoint', step: 10, path: 'checkpoint.bin' });
  await log.close();
  const all = await lines(folder);
  assert.equal(kinds(all), [
    'run',
    ...Array.from({ length: 10 }, (_, i) => `step ${i + 1}`),
    'checkpoint 10',
    'end 10',
  ]);
  assert.is(all[0]!['model'], 'base.gguf');
  assert.equal(all[0]!['config'], { run: { seed: '42' } }); // JSON has no such numbers
  assert.is(all[0]!['pid'], process.pid);
  assert.is(all.at(-1)!['state'], 'finished');
  for (const { time } of all) assert.ok(Math.abs(Date.parse(time as string) - Date.now()) < 60_000);
});

test('a resumed run goes on: what lies beyond its step and a torn line are cut off', async ({ folder }) => {
  const { stream } = collector();
  const first = await openLog(facts(folder), { folder, terminal: false, stream });
  for (let i = 1; i <= 6; i++) first.event(step(i, { loss: 7 }));
  await first.close('Ctrl-C');
  await appendFile(join(folder, 'metrics.jsonl'), '{"kind":"step","st');
  const second = collector();
  const log = await openLog(facts(folder, { startStep: 4 }), { folder, terminal: false, stream: second.stream });
  log.event(step(5));
  await log.close('again');
  const all = await lines(folder);
  assert.equal(kinds(all), ['run', 'step 1', 'step 2', 'step 3', 'step 4', 'run', 'step 5', 'end 5']);
  assert.is(all[6]!['loss'], 0.2);
  assert.is(all[7]!['state'], 'stopped');
  assert.is(all[7]!['reason'], 'again');
  assert.match(second.text(), /3 lines of metrics\.jsonl after step 4 are cut off/); // steps 5 and 6, the end
});

test('a torn line alone is dropped, and the lines before it stay', async ({ folder }) => {
  await writeFile(
    join(folder, 'metrics.jsonl'),
    `${JSON.stringify({ kind: 'step', time: '2026-01-01T00:00:00.000Z', step: 1, steps: 10 })}\n{"kind":"st`,
  );
  const log = await openLog(facts(folder, { startStep: 3 }), { folder, terminal: false, stream: collector().stream });
  await log.close('x');
  assert.equal(kinds(await lines(folder)), ['step 1', 'run', 'end 3']);
});

test('a run from the beginning puts an older log aside', async ({ folder }) => {
  for (const loss of [1, 2, 3]) {
    const { stream, text } = collector();
    const log = await openLog(facts(folder), { folder, terminal: false, stream });
    log.event(step(1, { loss }));
    await log.close('x');
    assert.is(/earlier run in this folder is now metrics\.\d\.jsonl/.test(text()), loss > 1);
  }
  assert.equal((await readdir(folder)).filter((name) => name.startsWith('metrics')).sort(), [
    'metrics.1.jsonl',
    'metrics.2.jsonl',
    'metrics.jsonl',
  ]);
  assert.match(await readFile(join(folder, 'metrics.1.jsonl'), 'utf8'), /"loss":1,/);
  assert.match(await readFile(join(folder, 'metrics.jsonl'), 'utf8'), /"loss":3,/);
});

test('skipped samples are named once, also across a restart, up to a number', async ({ folder }) => {
  const { stream, text } = collector();
  const log = await openLog(facts(folder), { folder, terminal: false, stream });
  for (let i = 0; i < 1500; i++) {
    log.event(skip(`pair ${i}`));
    log.event(skip('pair 0'));
  }
  log.event(step(1, { skipped: 3000 }));
  await log.close('x');
  const skips = (await lines(folder)).filter(({ kind }) => kind === 'skip');
  assert.is(skips.length, 1000);
  assert.is(new Set(skips.map(({ name }) => name)).size, 1000);
  assert.is(text().match(/^skipped world pair \d+: no picture$/gm)?.length, 20);
  assert.match(text(), /3000 samples were skipped/);
  const again = await openLog(facts(folder, { startStep: 1 }), { folder, terminal: false, stream: collector().stream });
  again.event(skip('pair 1'));
  await again.close('x');
  assert.is((await lines(folder)).filter(({ kind }) => kind === 'skip').length, 1000);
});

test('on a pipe every step is a line with all its figures', async ({ folder }) => {
  const { stream, text } = collector();
  const log = await openLog(facts(folder), { folder, terminal: false, stream });
  log.event(step(1));
  log.event({
    kind: 'validation',
    step: 1,
    loss: 0.4478,
    best: true,
    answers: [{ picture: 'pictures/cat.jpg', prompt: 'What is it?', text: 'A cat.\nOn a mat.' }],
  });
  log.event(step(2));
  await log.close('Ctrl-C');
  const out = text();
  assert.match(
    out,
    /^step 1\/10 {2}loss 1\.0000 {2}mean 0\.5000 {2}gradient 0\.25 {2}rate 1\.00e-4 {2}12\.3 pairs\/s {2}1500 tokens\/s {2}waiting 2 % {2}vision 40 % {2}1 h 06 min left$/m,
  );
  assert.match(out, /^step 2\/10 /m);
  assert.match(out, /^validation after step 1: loss 0\.4478, the best so far\n {2}cat\.jpg: A cat\. On a mat\.$/m);
  assert.match(out, /^stopped after step 2: Ctrl-C$/m);
  assert.not.match(out, /\x1b/);
});

test('on a terminal steps move a bar; the first, the last and everything else stay as lines', async ({ folder }) => {
  const { stream, text } = collector(true);
  const log = await openLog(facts(folder), { folder, terminal: true, stream });
  for (let i = 1; i <= 9; i++) log.event(step(i));
  log.event(skip('evil\x1b[2Jname'));
  await log.close();
  assert.equal(
    [...text().matchAll(/step (\d+)\/10 /g)].map((match) => match[1]),
    ['1', '9'],
  );
  assert.match(text(), /9\/10 loss 0\.1111 \| mean 0\.5000 \| 12\.3 pairs\/s \| 1 h 06 min left/);
  assert.match(text(), /evil\ufffd\[2Jname/);
  assert.not.match(text(), /\x1b\[2Jname/);
});

test('times are told in two units', () => {
  assert.equal([0.4, 59, 61, 3599, 3660, 90000, Infinity].map(duration), [
    '0 s',
    '59 s',
    '1 min 01 s',
    '59 min 59 s',
    '1 h 01 min',
    '1 d 01 h',
    '?',
  ]);
  assert.match(describeStep(step(3, { gradientNorm: 0.0001234, skipped: 2 })), /gradient 1\.2e-4 .*2 skipped$/);
});

const full = existsSync('/dev/full') ? test : test.skip;
full('a full disk is told once and ends nothing', async () => {
  const told: MiniGptError[] = [];
  const file = await LogFile.open('/dev/full', constants.O_WRONLY, 0, (error) => told.push(error));
  for (const text of ['a', 'b', 'c']) {
    file.append(Buffer.from(text));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.is(await file.close(), 3);
  assert.is(told.length, 1);
  assert.match(told[0]!.message, /ENOSPC/);
});

test('once there is room again nothing is lost, and nothing is torn', async ({ folder }) => {
  // a disk that takes three bytes of the next write, then none, until `room`
  const path = join(folder, 'log');
  const probe = await open(path, 'w');
  const prototype = Object.getPrototypeOf(probe) as FileHandle;
  await probe.close();
  const write = prototype.write as (...words: unknown[]) => Promise<{ bytesWritten: number }>;
  let room = true;
  let torn = false;
  prototype.write = async function (this: FileHandle, bytes: Buffer, from: number, length: number, at: number) {
    if (room) return write.call(this, bytes, from, length, at);
    if (torn)
      throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC', syscall: 'write' });
    torn = true;
    return write.call(this, bytes, from, 3, at);
  } as typeof prototype.write;
  try {
    const told: MiniGptError[] = [];
    const file = await LogFile.open(path, 'r+', 0, (error) => told.push(error));
    const append = async (text: string) => {
      file.append(Buffer.from(`${text}\n`));
      await new Promise((resolve) => setTimeout(resolve, 10));
    };
    await append('before');
    room = false;
    await append('while full');
    assert.is(await readFile(path, 'utf8'), 'before\nwhi');
    await append('still');
    room = true;
    await append('after');
    assert.is(await file.close(), 0);
    assert.is(told.length, 1);
    assert.is(await readFile(path, 'utf8'), 'before\nwhile full\nstill\nafter\n');
  } finally {
    prototype.write = write as typeof prototype.write;
  }
});

test('lines are cut wherever the pieces end', () => {
  const bytes = Buffer.from('Ä1\n\nzwei\nrest');
  for (let size = 1; size <= bytes.length; size++) {
    const cutter = new LineCutter(100);
    const found: string[] = [];
    for (let at = 0; at < bytes.length; at += size) found.push(...cutter.push(bytes.subarray(at, at + size)));
    assert.equal(found, ['Ä1', '', 'zwei']);
    assert.is(cutter.offset, 100 + bytes.length - 4);
  }
});

test('a folder that is a file is an error before the run', async ({ folder }) => {
  const file = join(folder, 'file');
  await writeFile(file, '');
  await rejects('ERR_FILE_READ', openLog(facts(file), { folder: file, terminal: false, stream: collector().stream }));
});

test('CRC-32C gives the published values', () => {
  // RFC 3720, appendix B.4, and the check value of the catalogue of CRCs
  assert.is(crc32c(Buffer.from('123456789')), 0xe3069283);
  assert.is(crc32c(Buffer.alloc(32)), 0x8a9136aa);
  assert.is(crc32c(Buffer.alloc(32, 0xff)), 0x62a8ab43);
  assert.is(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e);
  assert.is(maskedCrc32c(Buffer.from('123456789')), masked(0xe3069283));
});

/** The mask as its definition says it, in whole numbers of any size. */
const masked = (crc: number): number =>
  Number((((BigInt(crc) >> 15n) | ((BigInt(crc) << 17n) & 0xffffffffn)) + 0xa282ead8n) & 0xffffffffn);

type Message = Map<number, (number | bigint | Buffer)[]>;

/** Any protocol buffer: values by field; whole numbers as bigint, floats as numbers, the rest as bytes. */
function parse(bytes: Buffer): Message {
  const message: Message = new Map();
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]!;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const key = Number(varint());
    const wire = key & 7;
    let value: number | bigint | Buffer;
    if (wire === 0) value = varint();
    else if (wire === 1) value = bytes.readDoubleLE((at += 8) - 8);
    else if (wire === 5) value = bytes.readFloatLE((at += 4) - 4);
    else {
      assert.is(wire, 2);
      const length = Number(varint());
      value = bytes.subarray(at, (at += length));
    }
    message.set(key >> 3, [...(message.get(key >> 3) ?? []), value]);
  }
  assert.is(at, bytes.length);
  return message;
}

function records(bytes: Buffer): Buffer[] {
  const found: Buffer[] = [];
  for (let at = 0; at < bytes.length;) {
    const length = Number(bytes.readBigUInt64LE(at));
    assert.is(bytes.readUInt32LE(at + 8), masked(crc32c(bytes.subarray(at, at + 8))));
    const content = bytes.subarray(at + 12, at + 12 + length);
    assert.is(bytes.readUInt32LE(at + 12 + length), masked(crc32c(content)));
    found.push(content);
    at += length + 16;
  }
  return found;
}

const eventFiles = async (folder: string) =>
  (await readdir(folder)).filter((name) => /^events\.out\.tfevents\.\d{10}\..+\.\d+$/.test(name)).sort();

test('TensorBoard files hold every curve and the answers', async ({ folder }) => {
  const log = await openLog(facts(folder), { folder, terminal: false, stream: collector().stream });
  log.event(step(300));
  log.event({
    kind: 'validation',
    step: 300,
    loss: 0.75,
    best: true,
    answers: [{ picture: 'pictures/cat.jpg', prompt: 'What is it?', text: 'Eine Kätzchen.' }],
  });
  await log.close('x');
  const names = await eventFiles(folder);
  assert.is(names.length, 1);
  const events = records(await readFile(join(folder, names[0]!))).map(parse);
  assert.is(String(events[0]!.get(3)![0]), 'brain.Event:2');
  for (const event of events) assert.ok(Math.abs((event.get(1)![0] as number) - Date.now() / 1000) < 60);
  assert.is(events.length, 3);
  const values = events.slice(1).flatMap((event) => {
    assert.is(event.get(2)![0], 300n);
    return parse(event.get(5)![0] as Buffer)
      .get(1)!
      .map((value) => parse(value as Buffer));
  });
  const scalars = Object.fromEntries(
    values.filter((value) => value.has(2)).map((value) => [String(value.get(1)![0]), value.get(2)![0] as number]),
  );
  // float32 has 24 bits: half a unit of the last place is 2^-25 relative
  const expected = {
    'train/loss': 1 / 300,
    'train/mean_loss': 0.5,
    'train/learning_rate': 1e-4,
    'train/gradient_norm': 0.25,
    'train/pairs_per_second': 12.34,
    'train/tokens_per_second': 1500.4,
    'train/waiting_for_data': 0.02,
    'train/vision': 0.4,
    'validation/loss': 0.75,
  };
  assert.equal(Object.keys(scalars).sort(), Object.keys(expected).sort());
  for (const [tag, value] of Object.entries(expected))
    assert.ok(Math.abs(scalars[tag]! - value) <= value * 2 ** -24, `${tag}: ${scalars[tag]}`);
  const text = values.find((value) => value.has(8))!;
  assert.is(String(text.get(1)![0]), 'answers/1 cat.jpg');
  const tensor = parse(text.get(8)![0] as Buffer);
  assert.is(tensor.get(1)![0], 7n); // DT_STRING
  assert.is(String(tensor.get(8)![0]), '**What is it?**\n\nEine Kätzchen.');
  assert.is(String(parse(parse(text.get(9)![0] as Buffer).get(1)![0] as Buffer).get(1)![0]), 'text');
});

test('a resumed run has an event file of its own, which begins a session after its step', async ({ folder }) => {
  for (const startStep of [0, 4]) {
    const log = await openLog(facts(folder, { startStep }), { folder, terminal: false, stream: collector().stream });
    log.event(step(startStep + 1));
    await log.close('x');
  }
  const names = await eventFiles(folder);
  assert.is(names.length, 2);
  const events = records(await readFile(join(folder, names[1]!))).map(parse);
  const session = events[1]!;
  assert.is(session.get(2)![0], 5n);
  assert.is(parse(session.get(7)![0] as Buffer).get(1)![0], 1n); // START
});

test.run();
