// Batches of training pairs: their order, their state, how data sets are mixed, and what is passed over.
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openLoader, readHoldout } from '../lib/data/loader.js';
import type { DatasetConfig, LoaderOptions } from '../lib/data/options.js';
import type { Batch, SkippedPair } from '../lib/data/pair.js';
import { align, content, dataset, names, options, pairMembers, picture, shards, tar, write } from './data-files.js';
import { rejects } from './rejects.js';

const loader = suite('data loader');
const folder = mkdtempSync(join(tmpdir(), 'minigpt4-loader-'));
loader.after(() => rmSync(folder, { recursive: true, force: true }));

const blip = { maxWords: 50, prompt: '' };
const web = dataset({
  format: 'webdataset',
  storage: await shards(join(folder, 'web'), 3, 10),
  shuffleBuffer: 7,
  caption: blip,
});
const list = dataset({ format: 'cc_sbu_align', storage: await align(join(folder, 'align'), 26) });

/** `count` batches from the options, and the state after each, the one before the first included. */
async function take(given: LoaderOptions, count: number): Promise<{ batches: Batch[]; states: unknown[] }> {
  const open = await openLoader(given);
  const batches: Batch[] = [];
  const states = [open.state()];
  try {
    while (batches.length < count) {
      batches.push(await open.next());
      states.push(open.state());
    }
  } finally {
    await open.close();
  }
  return { batches, states };
}

const orders: Record<string, LoaderOptions> = {
  'shards with a buffer': options([web]),
  'shards in their order': options([{ ...web, shuffleBuffer: 0 }]),
  'a list': options([list]),
  'a list with random parts': options([{ ...list, crop: { minScale: 0.5, maxScale: 1 } }]),
  'batches mixed': options([web, { ...list, sampleRatio: 2 }], { rank: 1, worldSize: 2 }),
  'pairs mixed': options([web, list], { mix: 'sample' }),
};
for (const [what, given] of Object.entries(orders)) {
  loader(`${what}: the same seed gives the same batches, and any batch's state the same rest`, async () => {
    const count = 8; // more than an epoch of the list
    const { batches, states } = await take(given, count);
    const all = batches.map(content);
    for (const batch of batches) assert.is(batch.pairs.length, 4);
    assert.equal((await take({ ...given, readAhead: 0 }, count)).batches.map(content), all);
    for (let from = 0; from < count; from++) {
      const state: unknown = JSON.parse(JSON.stringify(states[from]));
      const rest = await take({ ...given, state, readAhead: from % 4 }, count - from);
      assert.equal(rest.batches.map(content), all.slice(from), `from batch ${from}`);
      assert.equal(rest.states.at(-1), states.at(-1));
    }
    assert.not.equal((await take({ ...given, seed: 43 }, count)).batches.map(content), all);
    assert.ok(JSON.stringify(states.at(-1)).length < 2000);
  });
}

loader('a pair: its name, texts by the rules, pixels and key', async () => {
  const { batches } = await take(options([web]), 1);
  const pair = batches[0]!.pairs[0]!;
  const number = Number(pair.name.slice(-6));
  assert.is(
    pair.name,
    `webdataset/${String(Math.floor(number / 10)).padStart(5, '0')}.tar/${String(number).padStart(6, '0')}`,
  );
  assert.equal(pair.turns, [{ answer: `caption ${number}` }]);
  assert.equal([pair.pixels!.width, pair.pixels!.height, [...pair.pixels!.data.slice(0, 3)]], [8, 6, [number, 0, 77]]);
  assert.is(
    pair.key,
    createHash('sha256')
      .update(await picture(number))
      .digest('hex'),
  );
});

loader('random parts have keys of their own, of the part', async () => {
  const { batches } = await take(options([{ ...list, crop: { minScale: 0.5, maxScale: 1 } }]), 30);
  const pixels = new Map<string, string>();
  const sizes = new Set<string>();
  for (const { key, name, pixels: part } of batches.flatMap(({ pairs }) => pairs)) {
    const same = `${name} ${part!.width} ${part!.height} ${Buffer.from(part!.data).toString('hex')}`;
    assert.is(pixels.get(key) ?? same, same, 'one key, one picture');
    pixels.set(key, same);
    sizes.add(`${part!.width} x ${part!.height}`);
  }
  assert.ok(sizes.size > 3 && pixels.size > 26, `${sizes.size} sizes, ${pixels.size} keys`);
});

loader('an epoch of a list has every pair once, in another order than the one before', async () => {
  const { batches } = await take(options([{ ...list, batchSize: 13 }]), 4);
  const epochs = [0, 2].map((i) => batches.slice(i, i + 2).flatMap(names));
  for (const epoch of epochs) assert.is(new Set(epoch).size, 26);
  assert.not.equal(epochs[0], epochs[1]);
  // 26 pairs are 5 batches of 5: what is left of the epoch is dropped
  const five = (await take(options([{ ...list, batchSize: 5 }]), 6)).batches.map(names);
  assert.is(new Set(five.slice(0, 5).flat()).size, 25);
  assert.equal([...five[5]!].sort(), [...new Set(five[5])].sort());
});

loader('two processes share a list: together they are one with batches twice as large', async () => {
  const [a, b] = await Promise.all([0, 1].map((rank) => take(options([list], { rank, worldSize: 2 }), 7)));
  const one = await take(options([{ ...list, batchSize: 8 }]), 7);
  one.batches.forEach((batch, i) => {
    const both = [...names(a!.batches[i]!), ...names(b!.batches[i]!)];
    assert.is(new Set(both).size, 8);
    assert.equal(both.sort(), names(batch).sort());
  });
});

loader('processes draw shards apart', async () => {
  const [a, b] = await Promise.all([0, 1].map((rank) => take(options([web], { rank, worldSize: 2 }), 3)));
  assert.not.equal(a!.batches.map(names), b!.batches.map(names));
});

loader('shards without a buffer are read in their order, drawn with replacement', async () => {
  const { batches } = await take(options([{ ...web, shuffleBuffer: 0, batchSize: 10 }]), 20);
  const drawn = batches.map((batch) => {
    const numbers = names(batch).map((name) => Number(name.slice(-6)));
    assert.equal(
      numbers,
      Array.from({ length: 10 }, (_, i) => numbers[0]! + i),
    );
    return numbers[0]! / 10;
  });
  assert.equal([...new Set(drawn)].sort(), [0, 1, 2]);
  assert.ok(
    drawn.some((shard, i) => shard === drawn[i + 1]),
    'with replacement',
  ); // 19 chances of 1 in 3
});

loader('data sets are mixed by their ratios', async () => {
  const sets = [web, { ...list, sampleRatio: 3 }];
  const lookup = async () => new Float32Array(1); // nothing is decoded
  // 400 draws with a share of 3/4: a standard deviation of 8.7; four of them
  const batches = (await take(options(sets, { lookup }), 400)).batches;
  const share = batches.filter((batch) => batch.dataset === 'cc_sbu_align').length;
  assert.ok(Math.abs(share - 300) < 35, `${share} of 400 batches`);
  for (const { dataset: name, pairs } of batches) assert.ok(pairs.every((pair) => pair.dataset === name));
  const mixed = (await take(options(sets, { mix: 'sample', lookup }), 100)).batches;
  const pairs = mixed.flatMap((batch) => batch.pairs).filter((pair) => pair.dataset === 'cc_sbu_align').length;
  assert.ok(Math.abs(pairs - 300) < 35, `${pairs} of 400 pairs`);
  assert.ok(mixed.every((batch) => batch.dataset === 'mixed'));
  assert.ok(mixed.some((batch) => new Set(batch.pairs.map((pair) => pair.dataset)).size === 2));
});

loader('features of the cache take the place of pixels', async () => {
  const features = new Float32Array([1, 2, 3]);
  const known = createHash('sha256')
    .update(await picture(3))
    .digest('hex');
  const asked: string[] = [];
  const lookup = async (key: string) => (asked.push(key), key === known ? features : undefined);
  const { batches } = await take(options([{ ...list, batchSize: 26 }], { lookup, readAhead: 0 }), 1);
  for (const pair of batches[0]!.pairs) {
    assert.is(pair.features, pair.name.endsWith('/3') ? features : undefined);
    assert.is(pair.pixels === undefined, pair.name.endsWith('/3'));
  }
  assert.is(asked.length, 26);
});

loader('pairs that are held back are never trained on', async () => {
  for (const [config, last] of [
    [{ ...web, holdout: 3 }, ['000027', '000028', '000029']],
    [{ ...list, holdout: 3, crop: { minScale: 0.5, maxScale: 0.6 } }, ['23', '24', '25']],
  ] as [DatasetConfig, string[]][]) {
    const held = await readHoldout(options([config]));
    assert.equal(
      held.map(({ name }) => name.split('/').at(-1)),
      last,
    );
    assert.ok(
      held.every(({ pixels }) => pixels!.width === 8 && pixels!.height === 6),
      'whole pictures',
    );
    const { batches } = await take(options([config]), 30);
    const trained = new Set(batches.flatMap(names).map((name) => name.split('/').at(-1)!));
    assert.is(trained.size, config.format === 'webdataset' ? 27 : 23);
    assert.ok(last.every((name) => !trained.has(name)));
  }
  await rejects('ERR_FILE_FORMAT', openLoader(options([{ ...web, holdout: 11 }])));
  await rejects('ERR_ARGUMENT', openLoader(options([{ ...list, holdout: 26 }])));
});

loader('LLaVA conversations', async () => {
  const home = join(folder, 'llava');
  for (let i = 0; i < 4; i++) write(join(home, `${i}.png`), await picture(i));
  const said = (...texts: string[]) => texts.map((value, i) => ({ from: i % 2 ? 'gpt' : 'human', value }));
  const items = [
    { id: 'a', image: '0.png', conversations: said('<image>\nWhat is it?', 'A dog.', 'Why?', 'It barks.') },
    { id: 'b', image: '1.png', conversations: said('Look.\n<image>', 'Yes.') },
    { id: 'c', image: '2.png', conversations: said('<image>', 'No question.') },
    { id: 'd', conversations: said('No picture?', 'No.') },
    { id: 'e', image: '3.png', conversations: [{ from: 'gpt', value: 'first' }] },
    { id: 'f', image: '3.png', conversations: said('What?', ' ') },
  ];
  const storage = write(join(home, 'llava.json'), JSON.stringify(items));
  const { batches } = await take(options([dataset({ format: 'llava', storage, batchSize: 3 })]), 4);
  const turns = new Map(batches.flatMap(({ pairs }) => pairs).map((pair) => [pair.name, pair.turns]));
  assert.equal(turns.get('llava/a'), [
    { question: 'What is it?', answer: 'A dog.' },
    { question: 'Why?', answer: 'It barks.' },
  ]);
  assert.equal(turns.get('llava/b'), [{ question: 'Look.', answer: 'Yes.' }]);
  assert.equal(turns.get('llava/c'), [{ answer: 'No question.' }]);
  const reasons = new Map(batches.flatMap(({ skipped }) => skipped).map(({ name, reason }) => [name, reason]));
  assert.match(reasons.get('llava/d')!, /no image/);
  assert.match(reasons.get('llava/e')!, /human and gpt in turn, found "gpt"/);
  assert.match(reasons.get('llava/f')!, /empty caption/);
});

loader('lists: CSV and JSON lines give the same pairs', async () => {
  const home = join(folder, 'list');
  for (let i = 0; i < 3; i++) write(join(home, 'pictures', `${i}.png`), await picture(i));
  const captions = ['plain', 'with "quotes", and commas', 'two\nlines'];
  const quoted = (text: string) => `"${text.replaceAll('"', '""')}"`;
  const lists = [
    write(
      join(home, 'a.csv'),
      `\ufeffpath,caption\r\n${captions.map((text, i) => `${i}.png,${quoted(text)}\r\n`).join('')}`,
    ),
    write(join(home, 'b.csv'), `id,Text,Image\n${captions.map((text, i) => `7,${quoted(text)},${i}.png`).join('\n')}`),
    write(
      join(home, 'c.jsonl'),
      captions.map((caption, i) => `${JSON.stringify({ path: `${i}.png`, caption })}\n`).join('\n'),
    ),
    write(join(home, 'd.list'), captions.map((text, i) => JSON.stringify({ file: `${i}.png`, text })).join('\n')),
  ];
  for (const storage of lists) {
    const config = dataset({ format: 'list', storage, images: join(home, 'pictures'), batchSize: 3 });
    const { batches } = await take(options([config]), 1);
    const found = batches[0]!.pairs.map(({ name, turns }) => [name, turns[0]!.answer]).sort();
    assert.equal(
      found,
      captions.map((text, i) => [`list/${i}.png`, text]),
      storage,
    );
  }
});

loader('broken samples of a list are named and passed over', async () => {
  const home = await align(join(folder, 'broken'), 20);
  write(join(home, 'image', '3.jpg'), 'no picture');
  write(join(home, 'image', '4.jpg'), (await picture(4)).subarray(0, 60));
  write(join(home, 'image', '5.jpg'), '');
  rmSync(join(home, 'image', '6.jpg'));
  const file = join(home, 'filter_cap.json');
  const { annotations } = JSON.parse(readFileSync(file, 'utf8')) as { annotations: object[] };
  annotations[7] = { image_id: '7', caption: ' \n' };
  annotations[8] = { image_id: '8' };
  annotations[9] = { caption: 'of nothing' };
  write(file, JSON.stringify(annotations)); // a plain list is taken too
  const config = dataset({ format: 'cc_sbu_align', storage: home });
  const { batches } = await take(options([config]), 10);
  assert.ok(batches.every(({ pairs }) => pairs.length === 4));
  const used = new Set(batches.flatMap(names).map((name) => Number(name.split('/')[1])));
  assert.equal(
    [...used].sort((a, b) => a - b),
    [0, 1, 2, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19],
  );
  const reasons = new Map(batches.flatMap(({ skipped }) => skipped).map(({ name, reason }) => [name, reason]));
  const expected: [string, RegExp][] = [
    ['3', /no picture that can be read/],
    ['4', /damaged or cut off/],
    ['5', /empty \(0 bytes\)/],
    ['6', /no such file/],
    ['7', /empty caption/],
    ['8', /no caption/],
    ['item 9', /no image_id/],
  ];
  assert.is(reasons.size, expected.length);
  for (const [name, words] of expected) assert.match(reasons.get(`cc_sbu_align/${name}`)!, words);
  const held: SkippedPair[] = [];
  assert.is((await readHoldout(options([{ ...config, holdout: 15 }]), (skip) => held.push(skip))).length, 10);
  assert.is(held.length, 5);
  const large = await take(
    options([list, dataset({ name: 'large', format: 'cc_sbu_align', storage: home })], { maxPixels: 48 }),
    1,
  );
  assert.is(large.batches.length, 1);
  const error = await rejects('ERR_FILE_FORMAT', take(options([list], { maxPixels: 47 }), 1));
  assert.match(error.message, /too large/);
});

loader('a damaged, an empty and a cut shard are named once, and what can be used is used', async () => {
  const home = join(folder, 'damaged');
  const config = dataset({ format: 'webdataset', storage: join(home, '{0..4}.tar'), shuffleBuffer: 5 });
  const members = await pairMembers(0, 6);
  const whole = await tar(members);
  write(join(home, '0.tar'), whole);
  write(join(home, '1.tar'), whole.subarray(0, Math.floor(whole.length / 2 / 512) * 512 + 100)); // pairs 0 to 2
  write(join(home, '2.tar'), '');
  write(join(home, '3.tar'), Buffer.alloc(5000, 'x'));
  write(join(home, '4.tar'), await tar([['readme.md', 'nothing']]));
  const given = options([config]);
  const { batches, states } = await take(given, 30);
  const skipped = batches.flatMap((batch) => batch.skipped);
  const reasons = new Map(skipped.map(({ name, reason }) => [name, reason]));
  const expected: [string, RegExp][] = [
    ['1.tar', /cut off.*the \d pairs before it are used/],
    ['2.tar', /empty \(0 bytes\)/],
    ['3.tar', /no tar file/],
    ['4.tar', /has no pair/],
  ];
  for (const [name, words] of expected) {
    assert.match(reasons.get(`webdataset/${name}`) ?? '', words);
    assert.is(skipped.filter((skip) => skip.name === `webdataset/${name}`).length, 1, `${name} is told once`);
  }
  assert.ok(batches.flatMap(names).some((name) => name.includes('1.tar')));
  // told once in the whole run, whatever it was resumed from
  const rest = await take({ ...given, state: states[10] }, 20);
  assert.equal(rest.batches.map(content), batches.slice(10).map(content));
});

loader('nothing usable at all is an error that says why, never an endless search', async () => {
  const home = join(folder, 'nothing');
  write(join(home, 'empty-0.tar'), '');
  write(join(home, 'empty-1.tar'), Buffer.alloc(1024, 'x'));
  const config = dataset({ format: 'webdataset', storage: join(home, 'empty-{0..1}.tar'), shuffleBuffer: 3 });
  let error = await rejects('ERR_FILE_FORMAT', take(options([config]), 1));
  assert.match(error.message, /data set webdataset.*any of its 2 shards.*empty-\d\.tar/s);
  const wrong = await tar([
    ['a.png', await picture(1)],
    ['a.json', '{"title": "a"}'],
    ['b.png', 'no picture'],
    ['b.json', '{"caption": "b"}'],
  ]);
  write(join(home, 'wrong.tar'), wrong);
  error = await rejects('ERR_FILE_FORMAT', take(options([{ ...config, storage: join(home, 'wrong.tar') }]), 1));
  assert.match(error.message, /no text "caption": found the keys title/);
  // one of them is enough
  write(join(home, 'one.tar'), Buffer.concat([wrong.subarray(0, -1024), await tar(await pairMembers(5, 1))]));
  const { batches } = await take(options([{ ...config, storage: join(home, 'one.tar') }]), 3);
  assert.equal(names(batches[2]!), Array(4).fill('webdataset/one.tar/000005'));

  const broken = await align(join(home, 'align'), 8);
  for (let i = 0; i < 5; i++) write(join(broken, 'image', `${i}.jpg`), 'broken');
  error = await rejects('ERR_FILE_FORMAT', take(options([dataset({ format: 'cc_sbu_align', storage: broken })]), 1));
  assert.match(error.message, /for a batch of 4, found too few of them in the 8 pairs of .*: \d, and 5 that are not/);
});

loader('an error comes after the batches before it, and again', async () => {
  const home = await align(join(folder, 'vanishing'), 8);
  const open = await openLoader(
    options([dataset({ format: 'cc_sbu_align', storage: home, batchSize: 8 })], { readAhead: 1 }),
  );
  await open.next();
  await new Promise((resolve) => setTimeout(resolve, 100)); // the second is read ahead meanwhile
  rmSync(join(home, 'image'), { recursive: true });
  assert.is((await open.next()).pairs.length, 8);
  const state = open.state();
  await rejects('ERR_FILE_FORMAT', open.next());
  await rejects('ERR_FILE_FORMAT', open.next());
  assert.equal(open.state(), state);
  await open.close();
});

loader('closing ends what waits', async () => {
  const open = await openLoader(options([web, { ...list, holdout: 2 }], { readAhead: 0 }));
  assert.equal(open.sizes, { cc_sbu_align: 24 });
  const waiting = open.next();
  const [error] = await Promise.all([
    rejects(
      'ERR_CLOSED',
      waiting.then(() => open.next()),
    ),
    waiting.then(() => open.close()),
  ]);
  assert.match(error.message, /closed/);
  await rejects('ERR_CLOSED', open.next());
  await open.close();
});

loader('options and storage that can give nothing', async () => {
  const without = dataset({ format: 'webdataset', storage: join(folder, 'web', '{00000..00004}.tar') });
  const missing = await rejects('ERR_FILE_NOT_FOUND', openLoader(options([without])));
  assert.match(missing.message, /data set webdataset: 2 of its 5 shards are not there, the first is .*00003\.tar/);
  for (const format of ['webdataset', 'cc_sbu_align', 'llava', 'list'] as const) {
    const error = await rejects(
      'ERR_FILE_NOT_FOUND',
      openLoader(options([dataset({ format, storage: join(folder, 'no.csv') })])),
    );
    assert.match(error.message, new RegExp(`the data set ${format}: .*no\\.csv`));
  }
  const csv = (text: string) => dataset({ format: 'list', storage: write(join(folder, 'wrong.csv'), text) });
  const column = await rejects('ERR_FILE_FORMAT', openLoader(options([csv('path,captoin\na.png,a\n')])));
  assert.match(column.message, /is captoin meant to be caption/);
  await rejects('ERR_FILE_FORMAT', openLoader(options([csv('')])));
  await rejects('ERR_FILE_FORMAT', openLoader(options([csv('path,caption\na.png,"a\n')])));
  await rejects('ERR_ARGUMENT', openLoader(options([csv('path,caption\na.png,a\n')]))); // one pair, batches of four
  const broken = await rejects('ERR_FILE_FORMAT', openLoader(options([csv('path,caption\na.png\nb.png,\n')])));
  assert.match(broken.message, /has 1 fields; expected 2.*empty caption/);
  for (const format of ['cc_sbu_align', 'llava'] as const) {
    const storage = join(folder, `wrong-${format}`);
    const file = format === 'llava' ? storage : join(storage, 'filter_cap.json');
    for (const text of ['{', '{}', '3']) {
      write(file, text);
      await rejects('ERR_FILE_FORMAT', openLoader(options([dataset({ format, storage })])));
    }
  }
  const wrong: [LoaderOptions, RegExp][] = [
    [options([]), /at least one data set/],
    [options([{ ...list, batchSize: 0 }]), /cc_sbu_align: batch size: expected a whole number, 1 or more, found 0/],
    [options([{ ...list, sampleRatio: 0 }]), /sample ratio/],
    [options([{ ...list, crop: { minScale: 0.5, maxScale: 2 } }]), /crop/],
    [options([{ ...list, format: 'tar' as 'list' }]), /format webdataset, cc_sbu_align, llava or list, found "tar"/],
    [options([list, list]), /different names/],
    [options([web, { ...list, batchSize: 5 }], { mix: 'sample' }), /one batch size/],
    [options([list], { rank: 2, worldSize: 2 }), /rank/],
    [options([list], { worldSize: 7 }), /at least 28 usable pairs \(a batch of 4 on each of 7 processes\), found 26/],
  ];
  for (const [given, words] of wrong) assert.match((await rejects('ERR_ARGUMENT', openLoader(given))).message, words);
});

loader('a state that does not fit is refused', async () => {
  const both = [web, list];
  const { states } = await take(options(both), 9);
  const state = states[9];
  const fewer = await align(join(folder, 'fewer'), 25);
  const short = join(folder, 'short');
  for (let i = 0; i < 3; i++) write(join(short, `0000${i}.tar`), await tar(await pairMembers(0, 1)));
  const wrong: [LoaderOptions, RegExp][] = [
    [options(both, { seed: 1 }), /seed 1 as in this run, found 42/],
    [options(both, { rank: 1, worldSize: 2 }), /rank 1/],
    [options(both, { mix: 'sample' }), /mix sample/],
    [options([web]), /data sets webdataset, found webdataset, cc_sbu_align/],
    [options([web, { ...list, storage: fewer }]), /cc_sbu_align: expected 26 pairs to train on, found 25/],
    [options([web, { ...list, caption: blip }]), /the same pairs in the same order/],
    [
      options([{ ...web, storage: join(folder, 'web', '{00000..00001}.tar') }, list]),
      /webdataset: expected 3 shards, found 2/,
    ],
    [
      options([{ ...web, storage: join(short, '{00000..00002}.tar') }, list]),
      /webdataset: expected more than \d pairs in the shard/,
    ],
  ];
  for (const [given, words] of wrong)
    assert.match((await rejects('ERR_ARGUMENT', openLoader({ ...given, state }))).message, words);
  for (const nonsense of [null, 3, {}, { ...(state as object), datasets: { webdataset: {}, cc_sbu_align: 1 } }])
    await rejects('ERR_ARGUMENT', openLoader({ ...options(both), state: nonsense }));
});

loader.run();
