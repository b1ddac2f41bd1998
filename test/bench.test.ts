// `minigpt4 bench` on models of a few kilobytes, with peers that are not the real ones; its counts, its record, its tables.
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { format } from 'prettier';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { addon } from '../lib/addon.js';
import { bytesPerToken, encodingOperations, promptOperations } from '../lib/bench/operations.js';
import { PEERS } from '../lib/bench/peers.js';
import { parseModels, planGroups, type Scope } from '../lib/bench/plan.js';
import { betterLimits, recordText, timesOf, type BenchRecord, type Limits, type Result } from '../lib/bench/record.js';
import { ScriptProcess } from '../lib/bench/script-process.js';
import { planLlm, planVision, plannedTensors, VISIONS, writeSynthetic } from '../lib/bench/synthetic.js';
import { markdownOf, textOf } from '../lib/bench/table.js';
import { nameOf } from '../lib/bench/measured-test.js';
import { newestRecord, withTables } from '../scripts/bench-table.js';
import { read } from './checkout.js';
import { minigpt4, script } from './command.js';
import { rejects } from './rejects.js';

const folder = mkdtempSync(join(tmpdir(), 'minigpt4-test-bench-'));
const bench = suite('bench');
bench.after(() => rmSync(folder, { recursive: true, force: true }));

// ---------------------------------------------------------------- the machine

bench('the machine is measured beside the event loop', async () => {
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  const rates = await addon.measureMachine({ threads: 1, level: addon.cpuLevels().at(-1)!, bytes: 2 ** 23, passes: 3 });
  clearInterval(timer);
  assert.ok(turns > 5, `${turns} turns`);
  assert.is(rates.threads, 1);
  for (const rate of [rates.read, rates.fma]) assert.ok(rate.best >= rate.median && rate.median > 0);
});

for (const [options, words] of [
  [{ bytes: 2 ** 23, passes: 0 }, /^passes: expected an integer from 1 to \d+, found 0/],
  [{ bytes: 2 ** 23, passes: 1, threads: 0 }, /^threads: expected an integer from 1 to \d+, found 0/],
  [{ bytes: 4096, passes: 1 }, /8388608 or more, found 4096/],
] as const) {
  bench(`measuring with ${JSON.stringify(options)} is an error`, async () => {
    await (async () => addon.measureMachine(options))().then(
      () => assert.unreachable(),
      (error: { code: string; message: string }) => {
        assert.is(error.code, 'ERR_ARGUMENT');
        assert.match(error.message, words);
      },
    );
  });
}

bench('a file goes out of the cache and keeps what it holds', async () => {
  const path = join(folder, 'some.txt');
  writeFileSync(path, 'some words');
  assert.is(await addon.forgetFile(path), process.platform === 'linux');
  assert.is(readFileSync(path, 'utf8'), 'some words');
  await addon.forgetFile(join(folder, 'none')).then(
    () => assert.unreachable(),
    (error: { code: string }) => assert.is(error.code, 'ERR_FILE_READ'),
  );
});

// ---------------------------------------------------------------- what is counted

bench("a Q4_K_M file has the types that llama.cpp's quantizer gives its tensors", () => {
  // more bits in the first and last eighth of the layers and in every third between: of 32 layers half
  const raised = (size: string) =>
    plannedTensors(planLlm(size, 'q4_k_m'))
      .filter(({ name, type }) => name.endsWith('ffn_down.weight') && type === 'q6_k')
      .map(({ name }) => Number(name.split('.')[1]));
  assert.equal(raised('7b'), [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]);
  assert.equal(raised('1.1b'), [0, 1, 4, 7, 10, 13, 16, 19, 20, 21]);
  const types = new Map(plannedTensors(planLlm('65m', 'q4_k_m')).map(({ name, type }) => [name, type]));
  assert.is(types.get('blk.0.attn_v.weight'), 'q6_k');
  assert.is(types.get('blk.2.attn_v.weight'), 'q4_k');
  assert.is(types.get('output.weight'), 'q6_k');
  // 1408 columns are no whole number of blocks of 256
  assert.is(types.get('blk.2.ffn_down.weight'), 'q5_0');
  assert.is(types.get('blk.0.ffn_down.weight'), 'q8_0');
});

bench('a planned file is what is written', async () => {
  for (const type of ['q4_0', 'q8_0', 'q4_k_m', 'f16'] as const) {
    const path = join(folder, `planned-${type}.gguf`);
    const planned = planLlm('tiny', type);
    await writeSynthetic(path, planned);
    assert.equal((await addon.readGguf(path)).tensors, plannedTensors(planned));
  }
});

bench('operations and bytes are counted as by hand', () => {
  const tensors = plannedTensors(planLlm('tiny', 'f32'));
  // width 256, 4 heads and 2 for keys and values of 64, 2 layers, hidden width 512, 1024 tokens
  const layer = 256 * 256 * 2 + 128 * 256 * 2 + 3 * 256 * 512;
  assert.is(bytesPerToken(tensors), 4 * (2 * (layer + 2 * 256) + 256 + 1024 * 256));
  const attention = 4 * 256 * (1 + 2 + 3); // of three rows, each looking back, keys and values
  assert.is(promptOperations(tensors, 3), 2 * (2 * 3 * layer + attention) + 2 * 1024 * 256);

  const shape = { ...VISIONS['vit-tiny']!, depth: 1, queryDepth: 1 };
  const vision = plannedTensors(planVision('one', shape, 'f32', 256));
  const [rows, width, mlp] = [17, 64, 128]; // 16 patches of 14 x 14 and the class token
  const vit = 2 * 16 * 64 * 588 + 2 * rows * width * (4 * width + 2 * mlp) + 4 * rows * rows * width;
  assert.is(encodingOperations(vision.filter(({ name }) => name.startsWith('v.'))), vit);
  const own = 4 * 2 * 4 * 64 * 64 + 4 * 4 * 4 * 64; // four queries, looking at each other
  const cross = 2 * 2 * 4 * 64 * 64 + 2 * 2 * rows * 64 * 64 + 4 * 4 * rows * 64;
  const rest = 2 * 2 * 4 * 64 * 128 + 2 * 4 * 256 * 64; // hidden layer and projection
  assert.is(encodingOperations(vision), vit + own + cross + rest);
});

bench('runs are told by median, best and worst, and marked when their threads did not get the cores', () => {
  const quiet = timesOf([{ ms: 30 }, { ms: 10 }, { ms: 20 }]);
  assert.equal(quiet, { medianMs: 20, bestMs: 10, worstMs: 30, runs: 3, disturbed: false });
  // 2 ms of 10 and none of 30 are 5 %: not above it
  assert.not(
    timesOf([
      { ms: 10, waitedShare: 0.2 },
      { ms: 30, waitedShare: 0 },
    ]).disturbed,
  );
  const waited = timesOf([
    { ms: 10, waitedShare: 0.3 },
    { ms: 30, waitedShare: 0 },
  ]);
  assert.equal([waited.waitedShare, waited.disturbed], [0.075, true]);
  assert.ok(timesOf([{ ms: 10, waitedShare: 0, stolenShare: 0.06 }]).disturbed);
});

bench('of two times that limits were taken the better rates count', () => {
  const limits = (read: number, fma: number, waitedShare: number): Limits => ({
    ...{ level: 'avx2', threads: 2, read: { best: read, median: read }, fma: { best: fma, median: fma } },
    ...{ waitedShare, disturbed: waitedShare > 0.05 },
  });
  assert.equal(betterLimits(limits(10, 2, 0.5), limits(9, 3, 0.01)), limits(10, 3, 0.01));
});

// ---------------------------------------------------------------- what is planned

const scope: Scope = {
  models: parseModels('65m,7b,vit-g', '--models'),
  ...{ levels: ['amx', 'avx2'], threads: 2, peers: true, busy: true, quick: false },
};

bench('a full run measures everything once, and what is compared side by side', () => {
  const told = planGroups(scope).map(({ model, participants }) => [
    model,
    ...participants.map(({ program, type, level = '', threads, tests }) =>
      `${type} ${program} ${level} ${threads}: ${tests.map(nameOf).join(' ')}`.replace('  ', ' '),
    ),
  ]);
  const language = (size: string, type: string) => [
    size,
    `${type} minigpt4 amx 2: pp64 pp512 tg64 chats8`,
    `${type} node-llama-cpp 2: pp64 pp512 tg64`,
    ...(type === 'q4_0' ? [`${type} minigpt4 avx2 2: pp64 tg64`] : []),
    ...(size === '65m' && type === 'q4_k_m' ? [`${type} minigpt4 amx 1: tg64`, `${type} node-llama-cpp 1: tg64`] : []),
  ];
  const types = ['q4_0', 'q8_0', 'q4_k_m'];
  assert.equal(told, [
    [
      'vit-g',
      ...['f16', 'bf16', 'q8_0'].map((type) => `${type} minigpt4 amx 2: enc vit`),
      ...['int8', 'fp32'].map((type) => `${type} onnxruntime-node 2: vit`),
      ...['f16', 'q8_0'].map((type) => `${type} minigpt4 avx2 2: enc vit`),
    ],
    ...types.map((type) => language('65m', type)),
    language('7b', 'q4_0'),
    ['vit-g q8_0, 7b', 'q4_0 minigpt4 amx 2: first'],
    language('7b', 'q8_0'),
    language('7b', 'q4_k_m'),
  ]);
});

bench('a quick run without peers leaves out other programs, single threads and the neighbour', () => {
  const groups = planGroups({ ...scope, levels: ['avx2'], peers: false, busy: false, quick: true });
  const all = groups.flatMap(({ participants }) => participants);
  assert.ok(all.length > 0);
  for (const { program, threads, busyTests } of all) assert.equal([program, threads, busyTests], ['minigpt4', 2, []]);
});

bench('a list of models may name types', () => {
  assert.equal(parseModels('7b:q4_0, vit-g:q8_0,7b:q8_0', '--models'), [
    { size: '7b', types: ['q4_0', 'q8_0'] },
    { size: 'vit-g', types: ['q8_0'] },
  ]);
  assert.throws(() => parseModels('7b:q4_0:x', '--models'), /found "q4_0:x"/);
});

bench('a first token is measured with the largest language model, wherever it is listed', () => {
  const models = parseModels('7b:q4_0,vit-g:q8_0,65m:q4_0', '--models');
  const firsts = planGroups({ ...scope, models }).filter(({ participants }) =>
    participants.some(({ tests }) => tests.some(({ kind }) => kind === 'firstToken')),
  );
  assert.equal(
    firsts.map(({ model }) => model),
    ['vit-g q8_0, 7b'],
  );
});

/** A process that ended and that nobody asked after is still listed. */
function runs(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return process.platform !== 'linux' || !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

bench('a process that says nothing in time is ended, one that ends early tells why', async () => {
  const failure = async (words: string[], limitMs: number): Promise<string> => {
    const touching = new ScriptProcess('touch-memory-process', 'the process', undefined, words);
    try {
      return (await rejects('ERR_INTERNAL', touching.answer(limitMs))).message;
    } finally {
      await touching.close();
      assert.not(runs(touching.pid!));
    }
  };
  assert.match(await failure([String(2 ** 20)], 1), /^the process did not answer in 0.001 s$/);
  assert.match(
    await failure(['many'], 60_000),
    /^the process ended by exit code 1: .*expected a number of bytes, found "many"/,
  );
});

bench('the busy neighbour ends with its parent, also while it is busy', async () => {
  const { signal, stdout, stderr } = await script(`
    process.execArgv = process.execArgv.filter((word) => !word.startsWith('--input-type')); // of this text, not of files
    const { Neighbour } = await import(lib + 'bench/neighbour.ts');
    const neighbour = await Neighbour.start();
    console.log(await neighbour.busy(async () => neighbour.pid));
    await neighbour.busy(async () => process.kill(process.pid, 'SIGKILL'));`);
  assert.is(signal, 'SIGKILL', stderr);
  const pid = Number(stdout);
  assert.ok(pid > 0, stdout);
  for (let left = 600; left > 0 && runs(pid); left--) await new Promise((done) => setTimeout(done, 50));
  assert.not(runs(pid));
});

// ---------------------------------------------------------------- a whole run

/** Packages that speak as the peers do, and compute nothing. */
function falsePeers(name: string): string {
  const peers = join(folder, name);
  const modules = join(peers, 'minigpt4-peers', 'node_modules');
  const write = (peer: keyof typeof PEERS, source: string): void => {
    const place = join(modules, peer);
    mkdirSync(place, { recursive: true });
    writeFileSync(join(place, 'package.json'), JSON.stringify({ name: peer, version: PEERS[peer], main: 'index.js' }));
    writeFileSync(join(place, 'index.js'), source);
  };
  write(
    'node-llama-cpp',
    `const wait = (ms) => new Promise((done) => setTimeout(done, ms));
     const sequence = {
       async clearHistory() {},
       async evaluateWithoutGeneratingNewTokens(ids) { await wait(ids.length / 8); },
       async *evaluate() { for (;;) { await wait(1); yield 5; } },
     };
     const loadModel = async ({ modelPath }) => {
       if (!modelPath.endsWith('.gguf')) throw new Error('no model');
       return { createContext: async () => ({ getSequence: () => sequence }) };
     };
     exports.getLlama = async () => ({ loadModel });`,
  );
  write(
    'onnxruntime-node',
    `exports.InferenceSession = { create: async () => ({ run: async () => process.exit(3) }) };
     exports.Tensor = class {};`,
  );
  const packages = Object.entries(PEERS).map(([peer, version]) => [`node_modules/${peer}`, { version }] as const);
  writeFileSync(join(modules, '.package-lock.json'), JSON.stringify({ packages: Object.fromEntries(packages) }));
  return peers;
}

const tiny = ['--models', 'tiny:q4_0,vit-tiny:q8_0', '--quick', '--repeat', '2', '--threads', '1'];

bench('a run beside peers gives a record; a peer that fails is told and left out', async () => {
  const files = join(folder, 'synthetic');
  const results = join(folder, 'results');
  mkdirSync(results);
  const words = ['bench', ...tiny, '--peers', '--peer-folder', falsePeers('peers'), '--busy', '--folder', files];
  const level = addon.cpuLevels().at(-1)!; // the slowest takes minutes
  const { code, stdout, stderr } = await minigpt4([...words, '--level', level, '--out', results, '--json'], {
    limitMs: 600_000, // where others work too
  });
  assert.is(code, 0, stderr);
  const record = JSON.parse(stdout) as BenchRecord;
  const told = `${record.skipped.join('\n')}\n${stderr}`;
  const of = (program: string) => record.results.filter((result) => result.program === program);
  assert.equal(
    of('minigpt4').map(({ model, type, test }) => `${model} ${type} ${test}`),
    [
      'vit-tiny q8_0 enc',
      'vit-tiny q8_0 vit',
      ...['pp64', 'pp512', 'tg64', 'chats8'].map((test) => `tiny q4_0 ${test}`),
      'vit-tiny q8_0, tiny q4_0 first',
    ],
    told,
  );
  assert.equal(
    of('node-llama-cpp').map(({ test }) => test),
    ['pp64', 'pp512', 'tg64'],
    told,
  );
  assert.is(new Set(of('node-llama-cpp').map(({ round }) => round)).size, 1, 'what is loaded together has one round');
  assert.equal(of('onnxruntime-node'), [], told);
  assert.ok(record.skipped.length > 0);
  for (const line of record.skipped)
    assert.match(line, /^vit-tiny (int8|fp32) onnxruntime-node.* ended by exit code 3/);
  for (const result of record.results) {
    assert.is(result.runs, 2);
    assert.ok(result.bestMs <= result.medianMs && result.medianMs <= result.worstMs && result.bestMs > 0);
    if (result.test !== 'first')
      assert.ok((result.gigabytesPerSecond ?? result.teraflops)! > 0, `${result.test}\n${told}`);
  }
  const operationsOf = (test: string): number => {
    const { teraflops, medianMs } = of('minigpt4').find((result) => result.test === test)!;
    return teraflops! * medianMs;
  };
  assert.ok(operationsOf('vit') < operationsOf('enc'), 'the Q-Former and the projection are no part of the ViT');
  // a token of this peer takes 1 ms by a timer that may be early by a part of it
  assert.ok(of('node-llama-cpp').find(({ test }) => test === 'tg64')!.medianMs >= 32);
  for (const { warm, fileBytes, program } of record.loads) assert.ok(warm.runs === 1 && fileBytes > 0, program);
  if (process.platform === 'linux')
    for (const { loadedPeakBytes, ownBytes, cold, touchedMs } of record.loads) {
      assert.ok(loadedPeakBytes! > ownBytes! && ownBytes! > 0);
      assert.is(touchedMs!.length, cold ? 2 : 1, 'memory is touched before each load');
    }
  assert.equal(
    record.busy.map(({ program, test }) => `${program} ${test}`),
    ['minigpt4 pp64', 'minigpt4 tg16', 'node-llama-cpp pp64', 'node-llama-cpp tg16'],
    told,
  );
  assert.ok(record.limits[0]!.read!.best > 0);
  assert.equal(record.peers, PEERS);
  // the file is the same record, as the repository's format check wants it
  const [name] = readdirSync(results);
  assert.is(name, `bench-${record.date.slice(0, 10)}.json`);
  const text = readFileSync(join(results, name!), 'utf8');
  assert.equal(JSON.parse(text), record);
  assert.is(await format(text, { parser: 'json', printWidth: 120 }), text);
  assert.ok(existsSync(files) && readdirSync(files).length >= 4);
});

bench('without npm there are no peers; temporary files go', async () => {
  const temporary = join(folder, 'tmp');
  mkdirSync(temporary);
  const env = { PATH: folder, npm_execpath: '', TMPDIR: temporary };
  const words = ['bench', '--models', 'tiny:q8_0', ...tiny.slice(2), '--peers', '--peer-folder', join(folder, 'none')];
  const { code, stdout, stderr } = await minigpt4(words, { env });
  assert.is(code, 0, stderr);
  assert.match(
    stdout,
    /^left out: node-llama-cpp [\d.]+ could not be installed: npm, which comes with Node.js, .*ENOENT/m,
  );
  assert.match(stdout, /^tiny Q8_0 +minigpt4, /m);
  assert.equal(
    readdirSync(temporary).filter((name) => name.startsWith('minigpt4-bench-')),
    [],
  );
});

// ---------------------------------------------------------------- tables

const times = { medianMs: 1000, bestMs: 900, worstMs: 1100, runs: 3, disturbed: false };
const result = (program: string, test: string, perSecond: number, more: Partial<Result> = {}): Result => ({
  ...{ model: '7b', type: 'q4_0', program, threads: 2, test, perSecond, unit: 'tokens/s', round: 1, ...times },
  ...(program === 'minigpt4' ? { level: 'avx2' } : {}),
  ...more,
});
const record: BenchRecord = {
  date: '2026-01-02T03:04:05.678Z',
  machine: {
    ...{ cpu: 'A CPU', cores: 4, memoryBytes: 16 * 2 ** 30, platform: 'linux x64 6.1', cpuLevels: ['scalar', 'avx2'] },
    ...{ node: '20.19.0', version: '1.2.3', compiler: 'GCC 12', commit: 'abc1234' },
  },
  threads: 2,
  peers: { 'node-llama-cpp': '3.0.0' },
  disturbedAbove: 0.05,
  seconds: 60,
  limits: [
    {
      ...{ level: 'avx2', threads: 2, read: { best: 40, median: 38 }, fma: { best: 0.25, median: 0.2 } },
      disturbed: false,
    },
  ],
  results: [
    result('minigpt4', 'pp64', 60, { teraflops: 0.1, limit: 'fma', shareOfLimit: 0.4 }),
    result('node-llama-cpp', 'pp64', 40),
    result('minigpt4', 'tg64', 10, { disturbed: true, limit: 'read', shareOfLimit: 0.9 }),
    result('node-llama-cpp', 'tg64', 5, { round: 2 }),
    result('minigpt4', 'chats8', 35),
  ],
  loads: [
    {
      ...{ model: '7b', type: 'q4_0', program: 'minigpt4', level: 'avx2', threads: 2, fileBytes: 4e9 },
      ...{ warm: times, peakBytes: 5e9 },
    },
  ],
  busy: [],
  skipped: ['13b q4_0: too large'],
};

bench('a record becomes tables: rates, shares, ratios of what was taken in turn, marks', () => {
  const rows = markdownOf(record)
    .split('\n')
    .filter((line) => line.startsWith('| 7B'));
  assert.equal(rows, [
    '| 7B Q4_0 | minigpt4, avx2 | 60 · 40 % · 1.50× |  | 10\\* · 90 % | 35 · 3.50× | 1.00 s | 5.00 GB · 1.25× |',
    '| 7B Q4_0 | node-llama-cpp | 40 |  | 5 |  |  |  |',
  ]);
  assert.match(markdownOf(record), /\\\* disturbed: .* more than 5 % of the time/);
  const text = textOf(record);
  assert.match(text, /^avx2 +2 +40 +0\.25$/m);
  assert.match(text, /^left out: 13b q4_0: too large$/m);
  const quiet = { ...record, results: record.results.slice(0, 2) };
  assert.not.match(markdownOf(quiet), /disturbed/);
});

bench("a picture's ViT is compared with the program that computes nothing else", () => {
  const picture = (program: string, type: string, test: string, medianMs: number): Result =>
    result(program, test, 1000 / medianMs, { model: 'vit-g', type, medianMs });
  const results = [
    picture('minigpt4', 'q8_0', 'enc', 1000),
    picture('minigpt4', 'q8_0', 'vit', 800),
    picture('onnxruntime-node', 'int8', 'vit', 1200),
  ];
  const lines = markdownOf({ ...record, results, loads: [] }).split('\n');
  assert.equal(
    lines.filter((line) => /^\| (model \| program \| one|vit)/.test(line)),
    [
      '| model | program | one picture | its ViT alone | loads | memory peak |',
      '| vit-g Q8_0 | minigpt4, avx2 | 1000 ms | 800 ms · 1.50× |  |  |',
      '| vit-g int8 | onnxruntime-node |  | 1200 ms |  |  |',
    ],
  );
});

bench('of several records the newest by its date counts', () => {
  const records = join(folder, 'records');
  mkdirSync(records);
  mkdirSync(join(folder, 'no-records'));
  for (const [name, date] of [
    ['bench-2026-01-02.json', '2026-01-02T10:00:00.000Z'],
    ['bench-2026-01-02-2.json', '2026-01-02T11:00:00.000Z'],
    ['train-2026-02-02.json', '2026-02-02T11:00:00.000Z'],
  ])
    writeFileSync(join(records, name!), recordText({ ...record, date }));
  assert.is(newestRecord(records)!.date, '2026-01-02T11:00:00.000Z');
  assert.is(newestRecord(join(folder, 'no-records')), undefined);
});

bench("the README's tables are those of the newest record", () => {
  const readme = read('README.md');
  assert.ok(newestRecord());
  assert.is(withTables(readme, newestRecord()), readme, 'run: node --import tsx scripts/bench-table.ts');
});

bench('tables go between the marks and nowhere else', () => {
  const readme = read('README.md');
  const other = withTables(readme, record);
  assert.match(other, '| 7B Q4_0 | minigpt4, avx2 | 60 ·');
  const outside = (text: string) => text.replace(/<!-- what follows[^]*<!-- until here -->/, '');
  assert.is(outside(other), outside(readme));
  assert.is(withTables(other, record), other);
  assert.is(withTables(other, undefined), withTables(readme, undefined));
  assert.throws(() => withTables('no marks', record), /expected <!-- what follows/);
});

bench('a record is text that the format check leaves as it is', async () => {
  const lists = Array.from({ length: 40 }, (_, more) => ['a'.repeat(50), 'b'.repeat(20 + more)]); // on both sides of a line's end
  for (const skipped of lists) {
    const text = recordText({
      ...record,
      nothing: [],
      empty: {},
      left: undefined,
      skipped,
      inner: { skipped, end: 1 },
    });
    assert.is(await format(text, { parser: 'json', printWidth: 120 }), text);
  }
});

bench.run();
