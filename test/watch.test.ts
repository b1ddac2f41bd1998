// The page that shows a training run, by what its server answers: the page's parts, the run's news as it grows, pictures, and what it refuses.
import { appendFile, mkdir, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { StepEvent } from '../lib/train/events.js';
import type { MetricsLine, RunLine } from '../lib/train/metrics.js';
import type { Update } from '../lib/train/watch/history.js';
import { Series } from '../lib/train/watch/series.js';
import { watch, type Watch, type WatchOptions } from '../lib/train/watch/watch.js';
import { rejects } from './rejects.js';

interface Context {
  folder: string;
  open: (options?: WatchOptions) => Promise<Watch>;
  opened: Watch[];
}
const test = suite<Context>('watch');
test.before.each(async (context) => {
  context.folder = await mkdtemp(join(tmpdir(), 'minigpt4-watch-'));
  context.opened = [];
  context.open = async (options = { port: 0 }) => {
    const opened = await watch(context.folder, options);
    context.opened.push(opened);
    return opened;
  };
});
test.after.each(async ({ folder, opened }) => {
  await Promise.all(opened.map((one) => one.close()));
  await rm(folder, { recursive: true, force: true });
});

const time = '2026-01-02T03:04:05.678Z';
const run = (more: Partial<RunLine> = {}): MetricsLine => ({
  kind: 'run',
  time,
  jobName: 'stage1',
  folder: 'output/stage1',
  device: 'cpu',
  model: 'base.gguf',
  steps: 100,
  startStep: 0,
  datasets: [{ name: 'world', pairs: 6000 }],
  config: { run: { seed: 42 } },
  pid: process.pid,
  host: hostname(),
  ...more,
});
const step = (number: number, more: Partial<StepEvent> = {}): MetricsLine & StepEvent => ({
  kind: 'step',
  time,
  step: number,
  steps: 100,
  epoch: 1,
  loss: 100 / number,
  runningLoss: 2,
  gradientNorm: 0.25,
  rate: 1e-4,
  pairs: 4,
  tokens: 100,
  targets: 40,
  pairsPerSecond: 12,
  tokensPerSecond: 1500,
  seconds: 0.3,
  waiting: 0.02,
  vision: 0.4,
  eta: 4000,
  dataset: 'world',
  skipped: 0,
  ...more,
});
const validation = (number: number, loss: number, picture: string, text: string): MetricsLine => ({
  kind: 'validation',
  time,
  step: number,
  loss,
  best: true,
  answers: [{ picture, prompt: 'What is it?', text }],
});
const write = (folder: string, ...lines: MetricsLine[]) =>
  appendFile(join(folder, 'metrics.jsonl'), lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
const steps = (first: number, last: number, more: Partial<StepEvent> = {}) =>
  Array.from({ length: last - first + 1 }, (_, i) => step(first + i, more));

/** What a page is told, as it comes; fails after ten seconds. */
async function* updates(url: string): AsyncGenerator<Update, void> {
  const response = await fetch(new URL('events', url), { signal: AbortSignal.timeout(10_000) });
  assert.is(response.status, 200);
  assert.match(response.headers.get('content-type')!, /^text\/event-stream/);
  let text = '';
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const message = text.slice(0, end);
      text = text.slice(end + 2);
      const [event, data] = message.split('\n');
      if (event === 'event: news') yield JSON.parse(data!.replace(/^data: /, '')) as Update;
    }
  }
}

async function next(stream: AsyncGenerator<Update, void>): Promise<Update> {
  const { value } = await stream.next();
  assert.ok(value, 'the stream ended');
  return value;
}
async function first(url: string): Promise<Update> {
  const stream = updates(url);
  const update = await next(stream);
  await stream.return();
  return update;
}

test('the page and all its parts are served from here, and name no other server', async ({ open }) => {
  const { url } = await open();
  const seen = new Set<string>();
  const wanted = [''];
  for (let name = wanted.pop(); name !== undefined; name = wanted.pop()) {
    if (seen.has(name)) continue;
    seen.add(name);
    const response = await fetch(new URL(name, url));
    assert.is(response.status, 200, name);
    const text = await response.text();
    const policy = response.headers.get('content-security-policy')!;
    assert.match(policy, /default-src 'self'/);
    assert.not.match(policy, /unsafe/);
    if (!name.startsWith('uplot'))
      assert.not.match(text.replace('http://www.w3.org/2000/svg', ''), /https?:\/\//, name);
    wanted.push(...[...text.matchAll(/(?:src|href)="([^"#]+)"/g)].map((match) => match[1]!));
    if (name.endsWith('.js'))
      wanted.push(...[...text.matchAll(/^\s*import [^;]*?'\.\/([^']+)'/gm)].map((match) => match[1]!));
    const type = response.headers.get('content-type')!;
    assert.match(type, name.endsWith('.js') ? /^text\/javascript/ : name.endsWith('.css') ? /^text\/css/ : /html|svg/);
  }
  assert.equal([...seen].sort(), [
    '',
    'answers.css',
    'answers.js',
    'charts.js',
    'curves.css',
    'format.js',
    'icon.svg',
    'main.js',
    'style.css',
    'summary.js',
    'uplot.css',
    'uplot.js',
  ]);
});

test('the page writes text as text: nothing in it parses HTML', async () => {
  const folder = fileURLToPath(new URL('../lib/train/watch/page/', import.meta.url));
  for (const name of ['main.js', 'summary.js', 'answers.js', 'charts.js', 'format.js'])
    assert.not.match(
      await readFile(join(folder, name), 'utf8'),
      /innerHTML|outerHTML|insertAdjacent|document\.write|DOMParser/,
    );
});

test('a folder without a log waits, and then follows it line by line', async ({ folder, open }) => {
  const { url } = await open();
  const stream = updates(url);
  const none = await next(stream);
  assert.is(none.reset, true);
  assert.is(none.status.state, 'waiting');
  assert.is(none.run, undefined);

  await write(folder, run(), ...steps(1, 3));
  const began = await next(stream);
  assert.is(began.reset, false);
  assert.is(began.status.state, 'running');
  assert.is(began.run!.jobName, 'stage1');
  assert.not.ok('pid' in began.run!);
  assert.is(began.series!.from, 0);
  assert.equal(began.series!.columns.step, [1, 2, 3]);
  assert.equal(began.series!.columns.loss, [100, 50, 33.333]);

  // half a line is no line yet
  const text = JSON.stringify(step(4));
  await appendFile(join(folder, 'metrics.jsonl'), text.slice(0, 40));
  await new Promise((resolve) => setTimeout(resolve, 1200));
  await appendFile(join(folder, 'metrics.jsonl'), `${text.slice(40)}\n`);
  const more = await next(stream);
  assert.is(more.run, undefined);
  assert.equal([more.series!.from, more.series!.columns.step], [2, [3, 4]]);

  await write(
    folder,
    { kind: 'checkpoint', time, step: 4, path: 'checkpoint-4' },
    { kind: 'skip', time, step: 4, dataset: 'world', name: '<img src=x>', reason: 'cut' },
    validation(4, 1.5, 'cat.jpg', 'A <b>cat</b>'),
    { kind: 'end', time, step: 4, state: 'stopped', reason: 'Ctrl-C' },
  );
  const end = await next(stream);
  assert.is(end.series, undefined);
  assert.is(end.status.state, 'stopped');
  assert.is(end.status.reason, 'Ctrl-C');
  assert.is(end.status.checkpoint!.path, 'checkpoint-4');
  assert.equal(end.status.skips, [{ step: 4, dataset: 'world', name: '<img src=x>', reason: 'cut' }]);
  assert.equal(end.status.best, { step: 4, loss: 1.5 });
  assert.equal(end.pictures, ['cat.jpg']);
  assert.equal(end.validations, {
    from: 0,
    list: [{ step: 4, loss: 1.5, best: true, answers: [{ picture: 0, prompt: 'What is it?', text: 'A <b>cat</b>' }] }],
  });
  await stream.return();
});

test('an old run is told whole to every page', async ({ folder, open }) => {
  await write(folder, run({ pid: 2 ** 22 + 1 }), ...steps(1, 100), { kind: 'end', time, step: 100, state: 'finished' });
  const { url } = await open();
  for (let page = 0; page < 2; page++) {
    const { status, series } = await first(url);
    assert.is(status.state, 'finished');
    assert.is(status.latest!.step, 100);
    assert.is(series!.columns.step.length, 100);
  }
});

test('a process that is gone without an end, here or elsewhere, does not count as running', async ({
  folder,
  open,
}) => {
  const { url } = await open();
  // no system gives out process numbers of 2^22 and more
  await write(folder, run({ pid: 2 ** 22 + 1 }), step(1));
  assert.is((await first(url)).status.state, 'gone');
  await write(folder, run({ host: 'elsewhere' }), step(2));
  assert.is((await first(url)).status.state, 'silent');
  await write(folder, { ...step(3), time: new Date().toISOString() });
  assert.is((await first(url)).status.state, 'running');
});

test('a log that is cut and goes on is read anew, also when it has grown longer since', async ({ folder, open }) => {
  const path = join(folder, 'metrics.jsonl');
  await write(folder, run(), ...steps(1, 5));
  const { length } = await readFile(path);
  await write(folder, ...steps(6, 20, { loss: 7 }));
  const { url } = await open();
  const stream = updates(url);
  assert.is((await next(stream)).series!.columns.step.length, 20);
  await truncate(path, length);
  await write(folder, run({ startStep: 5 }), ...steps(6, 60, { loss: 3 }));
  const again = await next(stream);
  assert.is(again.reset, true);
  assert.is(again.status.starts, 2);
  assert.equal(
    again.series!.columns.step,
    Array.from({ length: 60 }, (_, i) => i + 1),
  );
  assert.is(again.series!.columns.loss[5], 3);
  await stream.return();
});

test('lines that are none of ours are left out', async ({ folder, open }) => {
  await writeFile(
    join(folder, 'metrics.jsonl'),
    'hello\n[1]\nnull\n{"kind":"step"}\n{"kind":"validation","time":"x","step":1,"answers":[7]}\n{"kind":"toString","time":"x"}\n',
  );
  await write(folder, run(), step(1), { ...step(2), loss: NaN });
  await appendFile(join(folder, 'metrics.jsonl'), '\x00\xff\n');
  const { url } = await open();
  const { series, status } = await first(url);
  assert.equal(series!.columns.loss, [100, null]); // JSON has no NaN
  assert.is(status.latest!.step, 2);
});

test('a run of any length is sent in a bounded number of points, and no spike is lost', () => {
  const series = new Series();
  let halved = 0;
  const total = 50_000;
  for (let i = 1; i <= total; i++)
    if (series.push(step(i, { loss: i === 12_345 ? 99 : 1, gradientNorm: i === 23_456 ? 77 : 2, rate: i }))) halved++;
  assert.is(halved, 4); // 4096 points of 1, 2, 4, 8 steps were full: 16 steps a point
  assert.is(series.stride, 16);
  assert.is(series.length, Math.ceil(total / 16));
  const { step: at, loss, lossHigh, lossLow, gradientNorm, rate } = series.since(0);
  assert.equal(at.slice(0, 3), [16, 32, 48]);
  assert.is(at.at(-1), total);
  assert.equal(rate.slice(0, 2), [16, 32]);
  const spike = Math.floor((12_345 - 1) / 16);
  assert.is(lossHigh[spike], 99);
  assert.is(lossLow[spike], 1);
  assert.is(loss[spike], 7.125); // (15 + 99) / 16
  assert.is(gradientNorm[Math.floor((23_456 - 1) / 16)], 77);
  assert.is(Math.max(...(loss as number[])), 7.125);
  assert.equal(series.since(series.length - 1).step, [total]);
});

test('a page that was there before the points were halved gets all of them anew', async ({ folder, open }) => {
  await write(folder, run(), ...steps(1, 4096));
  const { url } = await open();
  const stream = updates(url);
  assert.is((await next(stream)).series!.columns.step.length, 4096);
  await write(folder, step(4097));
  const update = await next(stream);
  assert.is(update.reset, true);
  assert.is(update.series!.stride, 2);
  assert.is(update.series!.columns.step.length, 2049);
  assert.is(update.run!.jobName, 'stage1');
  await stream.return();
});

test('only pictures that the run lists are served, and only as pixels', async ({ folder, open }) => {
  await mkdir(join(folder, 'pictures'));
  const pixels = { create: { width: 1000, height: 500, channels: 3 as const, background: '#c04020' } };
  await sharp(pixels)
    .jpeg()
    .toFile(join(folder, 'pictures', 'a <b>.jpg'));
  await writeFile(join(folder, 'secret.txt'), 'secret');
  await write(
    folder,
    run(),
    validation(1, 1, 'pictures/a <b>.jpg', 'red'),
    validation(2, 1, join(folder, 'secret.txt'), 'text'),
    validation(3, 1, 'gone.jpg', 'nothing'),
  );
  const { url } = await open();
  const good = await fetch(new URL('pictures/0', url));
  assert.is(good.status, 200);
  assert.is(good.headers.get('content-type'), 'image/webp');
  assert.is(good.headers.get('x-content-type-options'), 'nosniff');
  const { format, width, height } = await sharp(Buffer.from(await good.arrayBuffer())).metadata();
  assert.equal([format, width, height], ['webp', 640, 320]);
  for (const place of ['1', '2', '3', '-1', '99999999999999999999', 'a', '0/../../secret.txt', '..%2f..%2fsecret.txt'])
    assert.is((await fetch(new URL(`pictures/${place}`, url))).status, 404, place);
});

/** The status of a path sent as it is: fetch would tidy it up. */
function statusOf(url: string, path: string, headers: Record<string, string> = {}): Promise<number> {
  const { hostname: host, port } = new URL(url);
  return new Promise((resolve, reject) => {
    request({ host, port, path, headers }, (response) => {
      response.resume();
      resolve(response.statusCode!);
    })
      .on('error', reject)
      .end();
  });
}

test('no path leads out of the page', async ({ folder, open }) => {
  await write(folder, run());
  const { url } = await open();
  for (const path of [
    '/metrics.jsonl',
    '/../watch.ts',
    '/..%2fwatch.ts',
    '/%2e%2e/%2e%2e/package.json',
    '/page/index.html',
    '/uplot/../../package.json',
    '/__proto__',
    '//etc/passwd',
    '/..\\..\\package.json',
  ]) {
    const status = await statusOf(url, path);
    assert.ok([400, 404].includes(status), `${path}: ${status}`);
  }
  assert.is((await fetch(url, { method: 'POST' })).status, 404);
});

test('a page of another name that leads to this machine is refused', async ({ open }) => {
  const { url } = await open();
  const { port } = new URL(url);
  assert.is(await statusOf(url, '/events', { host: `evil.example:${port}` }), 403);
  assert.is(await statusOf(url, '/', { host: `localhost:${port}` }), 200);
});

test('a port that is taken: an error when it was asked for, else another one', async ({ folder, open }) => {
  const other = createServer();
  await new Promise<void>((done) => other.listen(0, '127.0.0.1', done));
  const { port } = other.address() as AddressInfo;
  try {
    const { message } = await rejects('ERR_ARGUMENT', watch(folder, { port }));
    assert.match(message, new RegExp(`port ${port} of 127\\.0\\.0\\.1 is taken`));
  } finally {
    other.close();
  }
  const [one, two] = [await open({}), await open({})];
  assert.not.equal(one.url, two.url);
  for (const { url } of [one, two]) assert.is((await fetch(url)).status, 200);
});

test('wrong folders, hosts and options are said', async ({ folder }) => {
  const file = join(folder, 'file');
  await writeFile(file, '');
  assert.match(
    (await rejects('ERR_FILE_NOT_FOUND', watch(join(folder, 'none')))).message,
    /none: expected the folder of a run/,
  );
  assert.match((await rejects('ERR_FILE_NOT_FOUND', watch(file))).message, /found a file/);
  await rejects('ERR_ARGUMENT', watch(folder, { port: 70000 }));
  assert.match((await rejects('ERR_ARGUMENT', watch(folder, { prot: 1 } as never))).message, /did you mean port/);
  // 192.0.2.0/24 is nobody's (RFC 5737)
  assert.match(
    (await rejects('ERR_ARGUMENT', watch(folder, { port: 0, host: '192.0.2.1' }))).message,
    /address of this machine/,
  );
});

test('closing ends open streams, and the port is free again', async ({ folder }) => {
  await write(folder, run());
  const opened = await watch(folder, { port: 0 });
  const stream = updates(opened.url);
  await next(stream);
  await opened.close();
  await stream.next().catch(() => {}); // ends, or says that the connection was cut
  await assertRefused(opened.url);
  const { port } = new URL(opened.url);
  await (await watch(folder, { port: Number(port) })).close();
});

async function assertRefused(url: string): Promise<void> {
  try {
    await fetch(url);
  } catch {
    return;
  }
  assert.unreachable('the server still answers');
}

test.run();
