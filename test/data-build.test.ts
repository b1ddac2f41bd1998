// Shards made from lists: the same bytes every time, also after a run that was killed; what is refused; pictures copied and resized.
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { build } from '../lib/data/make-shards.js';
import { BuiltNames } from '../lib/data/make-shards-names.js';
import { everyPair, findData } from '../lib/data/every-pair.js';
import { readPicture } from '../lib/image.js';
import { minigpt4, script } from './command.js';
import { rejects } from './rejects.js';

const tests = suite('data build');
const folder = mkdtempSync(join(tmpdir(), 'minigpt4-build-'));
tests.after(() => rmSync(folder, { recursive: true, force: true }));

/** A picture of one colour, with a spot so that two kinds of it differ. */
const picture = (width: number, height: number, red: number) =>
  sharp({ create: { width, height, channels: 3, background: { r: red, g: 100, b: 200 } } });
mkdirSync(join(folder, 'pictures'));
const files = new Map<string, Buffer>();
for (let i = 0; i < 20; i++)
  files.set(
    `${i}.jpg`,
    await picture(40 + i, 30, i * 10)
      .jpeg()
      .toBuffer(),
  );
files.set('a.png', await picture(20, 20, 1).png().toBuffer());
files.set('b.webp', await picture(20, 20, 2).webp().toBuffer());
files.set('c.gif', await picture(20, 20, 3).gif().toBuffer());
files.set('cut.jpg', files.get('0.jpg')!.subarray(0, 200));
for (const [name, bytes] of files) writeFileSync(join(folder, 'pictures', name), bytes);

const list = join(folder, 'list.csv');
const rows = [...files.keys(), 'missing.jpg'].map((name) => `pictures/${name},"a caption, of ${name}"`);
writeFileSync(list, ['path,caption', ...rows, 'pictures/1.jpg,'].join('\n'));
/** Of these 25 pairs three cannot be used: cut.jpg, missing.jpg and the last, which has no caption. */
const usable = 23;

async function pairsOf(storage: string): Promise<{ name: string; picture: Uint8Array; answer: string }[]> {
  const pairs = [];
  for await (const met of everyPair(await findData(storage))) {
    assert.ok('name' in met, JSON.stringify(met));
    const { picture: bytes, turns } = await met.read();
    pairs.push({ name: met.name, picture: bytes, answer: turns[0]!.answer });
  }
  return pairs;
}

const contentsOf = (path: string) =>
  Object.fromEntries(
    readdirSync(path)
      .sort()
      .map((name) => [
        name,
        createHash('sha256')
          .update(readFileSync(join(path, name)))
          .digest('hex'),
      ]),
  );

tests('pictures are copied bit for bit, captions kept, broken pairs named and passed over', async () => {
  const out = join(folder, 'plain');
  const skipped: string[] = [];
  const result = await build({
    list,
    out,
    pairsPerShard: 10,
    onSkip: (name, reason) => skipped.push(`${name}: ${reason}`),
  });
  assert.is(result.storage, join(out, '{00000..00002}.tar'));
  assert.is(result.shards, 3);
  assert.is(result.pairs, usable);
  assert.is(result.skipped, 3);
  assert.match(skipped[0]!, /^pictures\/cut\.jpg: .*damaged or cut off/);
  assert.match(skipped[1]!, /^pictures\/missing\.jpg: .*no such file/);
  assert.match(skipped[2]!, /^pictures\/1\.jpg: .*caption/);
  const pairs = await pairsOf(result.storage);
  assert.is(pairs.length, usable);
  const kept = [...files.keys()].filter((name) => name !== 'cut.jpg');
  for (const [i, name] of kept.entries()) {
    assert.is(pairs[i]!.answer, `a caption, of ${name}`);
    if (name !== 'c.gif') assert.equal(Buffer.from(pairs[i]!.picture), files.get(name));
  }
  // a GIF is no kind that shards hold
  assert.equal([...pairs[22]!.picture.subarray(0, 3)], [0xff, 0xd8, 0xff]);
});

tests('the same list gives the same bytes', async () => {
  const [a, b] = [join(folder, 'once'), join(folder, 'twice')];
  await build({ list, out: a, pairsPerShard: 7 });
  await build({ list, out: b, pairsPerShard: 7 });
  assert.equal(contentsOf(a), contentsOf(b));
  assert.is(Object.keys(contentsOf(a)).length, 5); // four shards and the progress
});

tests('a run that was killed goes on to the same bytes', async () => {
  const [whole, out] = [join(folder, 'whole'), join(folder, 'killed')];
  await build({ list, out: whole, pairsPerShard: 4 });
  const ended = await script(`
    const { build } = await import(lib + 'data/make-shards.ts');
    await build({ list: ${JSON.stringify(list)}, out: ${JSON.stringify(out)}, pairsPerShard: 4,
      onProgress: (pairs) => pairs === 14 && process.kill(process.pid, 'SIGKILL') });`);
  assert.is(ended.signal, 'SIGKILL', ended.stderr);
  assert.is(readdirSync(out).filter((name) => name.endsWith('.tar')).length, 3);
  const error = await rejects('ERR_ARGUMENT', build({ list, out, pairsPerShard: 4 }));
  assert.match(error.message, /--resume/);
  const result = await build({ list, out, pairsPerShard: 4, resume: true });
  assert.is(result.pairs, usable);
  assert.is(result.skipped, 3);
  assert.equal(contentsOf(out), contentsOf(whole));
  // once more there is nothing left to do
  assert.equal(await build({ list, out, pairsPerShard: 4, resume: true }), result);
});

tests('an abort leaves whole shards only, and resume refuses other settings and another list', async () => {
  const out = join(folder, 'aborted');
  const stop = new AbortController();
  const own = join(folder, 'own.csv');
  writeFileSync(own, readFileSync(list));
  const options = { list: own, out, pairsPerShard: 5 };
  await rejects(
    'ERR_ABORTED',
    build({ ...options, signal: stop.signal, onProgress: (pairs) => pairs === 12 && stop.abort() }),
  );
  assert.equal(readdirSync(out).sort(), ['00000.tar', '00001.tar', 'build.json']);
  const other = await rejects('ERR_ARGUMENT', build({ ...options, pairsPerShard: 6, resume: true }));
  assert.match(other.message, /pairsPerShard was 5 and is 6/);
  writeFileSync(own, `${readFileSync(list, 'utf8')}\npictures/2.jpg,more`);
  assert.match(
    (await rejects('ERR_ARGUMENT', build({ ...options, resume: true }))).message,
    /the list is not what it was/,
  );
});

tests('shards that are there are replaced only by force, and none of theirs is left', async () => {
  const out = join(folder, 'there');
  await build({ list, out, pairsPerShard: 2 });
  const before = contentsOf(out);
  await rejects('ERR_ARGUMENT', build({ list, out }));
  assert.equal(contentsOf(out), before);
  const result = await build({ list, out, force: true });
  assert.is(result.storage, join(out, '00000.tar'));
  assert.equal(readdirSync(out).sort(), ['00000.tar', 'build.json']);
});

tests('shards are not written over those that are read', async () => {
  const out = join(folder, 'same');
  await build({ list, out });
  const before = contentsOf(out);
  assert.match((await rejects('ERR_ARGUMENT', build({ list: out, out, force: true }))).message, /is read/);
  assert.equal(contentsOf(out), before);
  const again = await build({ list: out, out: join(folder, 'other'), pairsPerShard: 20 });
  assert.is(again.pairs, usable);
});

tests('resizing: keep, squash, border', async () => {
  const sizes = async (resizeMode: 'keep' | 'squash' | 'border') => {
    const { storage } = await build({ list, out: join(folder, resizeMode), resize: 24, resizeMode });
    const pairs = await pairsOf(storage);
    return Promise.all(pairs.map(async (pair) => readPicture(pair.picture)));
  };
  const keep = await sizes('keep');
  assert.equal([keep[0]!.width, keep[0]!.height], [32, 24]); // of 40 x 30
  assert.equal([keep[20]!.width, keep[20]!.height], [20, 20]); // smaller ones stay
  for (const { width, height } of await sizes('squash')) assert.equal([width, height], [24, 24]);
  const border = await sizes('border');
  for (const { width, height } of border) assert.equal([width, height], [24, 24]);
  // 40 x 30 in a square: white above (JPEG rounds by a few levels), blue in the middle
  const at = (x: number, y: number) => Array.from(border[0]!.data.subarray((y * 24 + x) * 3, (y * 24 + x) * 3 + 3));
  assert.ok(
    at(12, 0).every((level) => level > 245),
    String(at(12, 0)),
  );
  assert.ok(at(12, 12)[0]! < 40 && at(12, 12)[2]! > 180, String(at(12, 12)));
});

tests('a shard ends at its size too', async () => {
  const { shards } = await build({ list, out: join(folder, 'sized'), shardSize: 1 });
  assert.is(shards, usable);
});

tests('conversations of several answers are passed over', async () => {
  const llava = join(folder, 'llava.json');
  const said = (count: number) =>
    Array.from({ length: count }, (_, i) => [
      { from: 'human', value: `<image>\nQuestion ${i}` },
      { from: 'gpt', value: `Answer ${i}` },
    ]).flat();
  const items = [
    { id: 'one', image: 'pictures/1.jpg', conversations: said(1) },
    { id: 'two', image: 'pictures/2.jpg', conversations: said(2) },
  ];
  writeFileSync(llava, JSON.stringify(items));
  const skipped: string[] = [];
  const { storage, pairs } = await build({
    list: llava,
    out: join(folder, 'llava'),
    onSkip: (name, why) => skipped.push(name + why),
  });
  assert.is(pairs, 1);
  assert.match(skipped.join(), /^two.*2 answers/);
  assert.is((await pairsOf(storage))[0]!.answer, 'Answer 0');
});

tests('a list without a usable pair leaves no shards', async () => {
  const none = join(folder, 'none.csv');
  writeFileSync(none, 'path,caption\nmissing.jpg,gone');
  const out = join(folder, 'none');
  await rejects('ERR_FILE_FORMAT', build({ list: none, out }));
  assert.equal(existsSync(out) ? readdirSync(out) : [], []);
});

tests('patterns of names', () => {
  const name = (out: string, index: number) => new BuiltNames(out).path(index);
  assert.is(name('x', 3), 'x/00003.tar');
  assert.is(name('x/{}.tar', 3), 'x/00003.tar');
  assert.is(name('x/{...}.tar', 3), 'x/00003.tar');
  assert.is(name('x/a-{000..}-b.tar', 12), 'x/a-012-b.tar');
  assert.is(name('x/{10..99}.tar', 2), 'x/12.tar');
  assert.is(new BuiltNames('x/a-{000..}.tar').storage(12), 'x/a-{000..011}.tar');
  for (const wrong of ['x/{a}.tar', 'x/one.tar', 'x/{}.zip', '{}/x.tar'])
    assert.throws(() => new BuiltNames(wrong), /shards to write/);
});

tests('the command prints the storage, and names what it passed over', async () => {
  const out = join(folder, 'command');
  const done = await minigpt4(['data', 'build', list, '--out', join(out, 'p-{000..}.tar'), '--pairs-per-shard', '20']);
  assert.is(done.code, 0, done.stderr);
  assert.match(done.stdout, /23 pairs in 2 shards, .*3 passed over\nstorage: .*p-\{000\.\.001\}\.tar\n$/);
  assert.is(done.stderr.match(/^passed over: /gm)?.length, 3);
  const again = await minigpt4(['data', 'build', list, '--out', join(out, 'p-{000..}.tar'), '--json']);
  assert.is(again.code, 2);
  const wrong = await minigpt4(['data', 'build', list, '--out', out, '--resize-mode', 'boarder', '--resize', '9']);
  assert.is(wrong.code, 2);
  assert.match(wrong.stderr, /--resize-mode.*did you mean border/);
});

tests.run();
