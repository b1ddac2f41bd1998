// Features on disk: what was put is what is got, whatever happened to the files meanwhile.
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openFeatureCache, type FeatureCacheOptions } from '../lib/data/feature-cache.js';
import { toHalf } from '../lib/data/half.js';
import { packageRoot } from '../lib/addon.js';
import { rejects } from './rejects.js';

const cache = suite('feature cache');
const root = mkdtempSync(join(tmpdir(), 'minigpt4-features-'));
cache.after(() => rmSync(root, { recursive: true, force: true }));

const values = 48;
const key = (number: number) => createHash('sha256').update(String(number)).digest('hex');
const features = (number: number) => Float32Array.from({ length: values }, (_, i) => Math.sin(number * 100 + i));
const expected = (number: number, type: 'f16' | 'f32') =>
  type === 'f16' ? toHalf(features(number)) : features(number);

let folders = 0;
/** Options of a cache in a folder of its own, and the problems that it tells. */
function fresh(given: Partial<FeatureCacheOptions> = {}): { options: FeatureCacheOptions; problems: string[] } {
  const problems: string[] = [];
  const onProblem = (problem: string) => problems.push(problem);
  const folder = join(root, String(folders++));
  return { options: { folder, modelHash: 'model', values, type: 'f16', rank: 0, onProblem, ...given }, problems };
}

async function put(options: FeatureCacheOptions, numbers: number[]): Promise<void> {
  const open = await openFeatureCache(options);
  await Promise.all(numbers.map((number) => open.put(key(number), features(number))));
  await open.close();
}

/** The numbers of those asked for whose features are there, each checked. */
async function got(options: FeatureCacheOptions, numbers: number[]): Promise<number[]> {
  const open = await openFeatureCache(options);
  const found = [];
  for (const number of numbers) {
    const record = await open.get(key(number));
    if (!record) continue;
    assert.equal(record, expected(number, options.type));
    found.push(number);
  }
  assert.is(open.stats().hits, found.length);
  assert.is(open.stats().misses, numbers.length - found.length);
  await open.close();
  return found;
}

const files = ({ folder }: FeatureCacheOptions) => {
  const home = join(folder, readdirSync(folder)[0]!);
  return readdirSync(home)
    .sort()
    .map((name) => join(home, name));
};

for (const type of ['f16', 'f32'] as const) {
  cache(`${type}: what was put is got, at once and after opening again`, async () => {
    const { options, problems } = fresh({ type });
    const open = await openFeatureCache(options);
    assert.is(await open.get(key(1)), undefined);
    const own = features(1);
    const writing = open.put(key(1), own);
    own.fill(0); // the caller goes on with it
    await writing;
    await open.put(key(1), features(1));
    assert.equal(await open.get(key(1)), expected(1, type));
    assert.equal(open.stats(), { records: 1, hits: 1, misses: 1, written: 1, damaged: 0, torn: 0, writing: true });
    await open.close();
    await put(options, [2, 3]);
    assert.equal(await got(options, [1, 2, 3, 4]), [1, 2, 3]);
    const [records] = files(options);
    assert.is(statSync(records!).size, values * (type === 'f16' ? 2 : 4));
    assert.equal(problems, []);
  });
}

cache('bits of half precision are kept as they are', async () => {
  const { options } = fresh();
  const open = await openFeatureCache(options);
  const bits = Uint16Array.from({ length: values }, (_, i) => i * 1000);
  await open.put(key(1), bits);
  assert.equal(await open.get(key(1)), bits);
  await open.close();
});

cache('other models, sizes and types have caches of their own', async () => {
  const { options } = fresh();
  await put(options, [1]);
  assert.equal(await got({ ...options, modelHash: 'another' }, [1]), []);
  assert.equal(await got({ ...options, type: 'f32' }, [1]), []);
  assert.equal(await got({ ...options, values: values * 2 }, [1]), []);
  assert.equal(await got(options, [1]), [1]);
});

cache('processes write beside each other, and read what all wrote before', async () => {
  const { options, problems } = fresh();
  const two = [await openFeatureCache(options), await openFeatureCache(options)]; // even of the same rank
  const ranks = [...two, await openFeatureCache({ ...options, rank: 1 })];
  for (let i = 0; i < 30; i++) await Promise.all(ranks.map((open, r) => open.put(key(r * 5 + i), features(r * 5 + i))));
  await Promise.all(ranks.map((open) => open.close()));
  const all = Array.from({ length: 40 }, (_, i) => i);
  assert.equal(await got(options, all), all);
  assert.is(files(options).length, 6);
  assert.equal(problems, []);
});

cache('what a crash cuts off is left out', async () => {
  const { options, problems } = fresh();
  await put(options, [0, 1, 2, 3]);
  const [records, keys] = files(options) as [string, string];
  appendFileSync(records, new Uint8Array(7)); // half a record, no key
  let open = await openFeatureCache(options);
  assert.equal([open.stats().records, open.stats().torn], [4, 1]);
  await open.close();
  truncateSync(keys, statSync(keys).size - 5); // half a key
  assert.equal(await got(options, [0, 1, 2, 3]), [0, 1, 2]);
  truncateSync(records, values * 2 * 2 + 1); // two records and a byte
  assert.equal(await got(options, [0, 1, 2, 3]), [0, 1]);
  truncateSync(keys, 11);
  assert.equal(await got(options, [0, 1]), []);
  rmSync(records);
  assert.equal(await got(options, [0, 1]), []);
  open = await openFeatureCache(options); // and it goes on beside the remains
  await open.put(key(0), features(0));
  await open.close();
  assert.equal(await got(options, [0, 1]), [0]);
  assert.equal(problems, []);
});

cache('damaged records are misses, named, and replaced', async () => {
  const { options, problems } = fresh();
  await put(options, [0, 1, 2]);
  const [records, keys] = files(options) as [string, string];
  const bytes = readFileSync(records);
  bytes[values * 2 + 9]! ^= 4;
  writeFileSync(records, bytes);
  const open = await openFeatureCache(options);
  assert.is(await open.get(key(1)), undefined);
  assert.is(await open.get(key(1)), undefined);
  assert.equal(await open.get(key(2)), expected(2, 'f16'));
  assert.equal([open.stats().damaged, open.stats().misses], [1, 2]);
  assert.is(problems.length, 1);
  assert.match(problems[0]!, /record 1 of rank0-0000 cannot be used: its checksum/);
  await open.put(key(1), features(1));
  assert.equal(await open.get(key(1)), expected(1, 'f16'));
  await open.close();
  problems.length = 0;
  assert.equal(await got(options, [0, 1, 2]), [0, 1, 2]);
  assert.equal(problems, []); // the later one is taken first
  const header = readFileSync(keys);
  header[20]! ^= 1;
  writeFileSync(keys, header);
  assert.equal(await got(options, [0, 1, 2]), [1]);
  assert.match(problems[0]!, /rank0-0000 is not of this cache, or damaged/);
});

cache('a disk that fills ends the writing, once told, and nothing else', () => {
  // files of at most 8 blocks of 1024 bytes: the record that reaches beyond fails as it would on a full disk
  const program = `
    import { openFeatureCache } from ${JSON.stringify(join(packageRoot, 'lib', 'data', 'feature-cache.ts'))};
    import { createHash } from 'node:crypto';
    const key = (number) => createHash('sha256').update(String(number)).digest('hex');
    const problems = [];
    const open = await openFeatureCache({ folder: process.argv[1], modelHash: 'm', values: 1000, type: 'f16', rank: 0, onProblem: (p) => problems.push(p) });
    for (let i = 0; i < 10; i++) await open.put(key(i), new Float32Array(1000).fill(i));
    const found = [];
    for (let i = 0; i < 10; i++) if (await open.get(key(i))) found.push(i);
    console.log(JSON.stringify({ found, problems, stats: open.stats() }));
    await open.close();`;
  const folder = join(root, 'full');
  const run = spawnSync(
    'bash',
    [
      '-c',
      'ulimit -f 8; exec "$0" "$@"',
      process.execPath,
      '--import',
      'tsx',
      '--input-type=module',
      '-e',
      program,
      folder,
    ],
    {
      cwd: packageRoot,
      encoding: 'utf8',
      env: { ...process.env, TSX_DISABLE_CACHE: '1' },
    },
  );
  assert.is(run.status, 0, run.stderr);
  const { found, problems, stats } = JSON.parse(run.stdout) as { found: number[]; problems: string[]; stats: object };
  assert.equal(found, [0, 1, 2, 3]);
  assert.is(problems.length, 1);
  assert.match(problems[0]!, /nothing more is written: .*(EFBIG|large)/);
  assert.equal(stats, { records: 4, hits: 4, misses: 6, written: 4, damaged: 0, torn: 0, writing: false });
});

cache('wrong use', async () => {
  const { options } = fresh({ type: 'f32' });
  const open = await openFeatureCache(options);
  await rejects('ERR_ARGUMENT', open.put('abc', features(1)));
  await rejects('ERR_ARGUMENT', open.put(key(1), new Float32Array(3)));
  await rejects('ERR_ARGUMENT', open.put(key(1), new Uint16Array(values)));
  await open.close();
  await open.close();
  await rejects('ERR_CLOSED', open.get(key(1)));
  await rejects('ERR_CLOSED', open.put(key(1), features(1)));
  await rejects('ERR_ARGUMENT', openFeatureCache({ ...options, values: 0 }));
  writeFileSync(join(root, 'file'), '');
  const error = await rejects('ERR_FILE_READ', openFeatureCache({ ...options, folder: join(root, 'file', 'below') }));
  assert.match(error.message, /feature cache .* cannot be used/);
});

cache.run();
