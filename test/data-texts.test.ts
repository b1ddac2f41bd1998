// What loading is made of: rules for captions, parts of pictures, names of shards, members of tars, lists.
import { mkdtempSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { blipCaption } from '../lib/data/captions.js';
import { cut, drawCrop } from '../lib/data/crop.js';
import { csvRows } from '../lib/data/csv.js';
import { toHalf } from '../lib/data/half.js';
import { openShard, readShardEntry } from '../lib/data/shard.js';
import { shardNames } from '../lib/data/shard-names.js';
import { readTarIndex } from '../lib/data/tar.js';
import { MiniGptError } from '../lib/errors.js';
import { halfToNumber } from '../lib/formats/numbers.js';
import { Random } from '../lib/random.js';
import { pairMembers, picture, tar, write } from './data-files.js';

const texts = suite('data texts');
const folder = mkdtempSync(join(tmpdir(), 'minigpt4-data-'));
texts.after(() => rmSync(folder, { recursive: true, force: true }));

// each as the original's function in Python gives it: with 50 words, and with 2 words and a prompt
const captions: [string, string, string][] = [
  ['A Dog, on the GRASS.', 'a dog, on the grass', 'a photo of a dog,'],
  ['Mr. "X" (left): 50% off!! #sale ~ now; go*', 'mr x left 50% off sale now go', 'a photo of mr x'],
  ["it's\ta tab\t\tand  two\nlines\n\n", "it's\ta tab and two\nlines", "a photo of it's\ta tab"],
  ['one two three four', 'one two three four', 'a photo of one two'],
  ['ÜBER Straße\u00a0\u00a0x', 'über straße x', 'a photo of über straße'],
  ['a\u001c\u001cb', 'a b', 'a photo of a b'],
  ['a\ufeff\ufeffb', 'a\ufeff\ufeffb', 'a photo of a\ufeff\ufeffb'],
  ['ends with tab\t', 'ends with tab\t', 'a photo of ends with'],
  ['well-known A/B?\n \n', 'well-known a/b?', 'a photo of well-known a/b?'],
  ['\tx.\n.', '\tx', 'a photo of \tx'],
];

texts('captions as the original has them', () => {
  for (const [caption, plain, short] of captions) {
    assert.is(blipCaption(caption, { maxWords: 50, prompt: '' }), plain);
    assert.is(blipCaption(caption, { maxWords: 2, prompt: 'a photo of ' }), short);
  }
  const long = Array.from({ length: 60 }, (_, i) => `w${i}`);
  assert.is(blipCaption(long.join('  '), { maxWords: 50, prompt: '' }), long.slice(0, 50).join(' '));
  // nothing is left, and the prompt alone is no caption
  for (const empty of ['', '  . ', '\n', '(!)']) assert.is(blipCaption(empty, { maxWords: 50, prompt: 'a ' }), '');
});

texts('random parts of a picture lie within the bounds', () => {
  const random = new Random(1);
  const places = new Set<string>();
  for (let i = 0; i < 500; i++) {
    const part = drawCrop(200, 150, { minScale: 0.5, maxScale: 0.9 }, random);
    const { left, top, width, height } = part;
    assert.ok(left >= 0 && top >= 0 && left + width <= 200 && top + height <= 150, JSON.stringify(part));
    // each side is rounded to a whole pixel: half a pixel of at least 100 in one, of at least 87 in the other
    const [share, proportion] = [(width * height) / 30_000, width / height];
    assert.ok(share > 0.5 * 0.989 && share < 0.9 * 1.011, `share ${share}`);
    assert.ok(proportion > 0.75 * 0.989 && proportion < 1.3334 * 1.011, `proportion ${proportion}`);
    places.add(`${left} ${top} ${width} ${height}`);
  }
  assert.ok(places.size > 400, `${places.size} different parts`);
  const again = () => drawCrop(200, 150, { minScale: 0.5, maxScale: 1 }, new Random(7));
  assert.equal(again(), again());
  // half the area in these proportions never fits: the centre, as torchvision has it
  const scales = { minScale: 0.5, maxScale: 1 };
  assert.equal(drawCrop(100, 10, scales, random), { left: 43, top: 0, width: 13, height: 10 });
  assert.equal(drawCrop(10, 100, scales, random), { left: 0, top: 43, width: 10, height: 13 });
  assert.equal(drawCrop(1, 1, scales, random), { left: 0, top: 0, width: 1, height: 1 });
});

texts('a part of the pixels is cut out', () => {
  const data = Uint8Array.from({ length: 4 * 3 * 3 }, (_, i) => i);
  const part = cut({ data, width: 4, height: 3 }, { left: 1, top: 1, width: 2, height: 2 });
  assert.equal([part.width, part.height], [2, 2]);
  assert.equal([...part.data], [15, 16, 17, 18, 19, 20, 27, 28, 29, 30, 31, 32]);
});

texts('half precision rounds to the nearest, ties to even', () => {
  const values: number[] = [];
  const expected: number[] = [];
  for (let half = 0; half < 0x7c00; half += 1 + (half % 7)) {
    const [value, above] = [halfToNumber(half), half === 0x7bff ? 65536 : halfToNumber(half + 1)];
    const tie = (value + above) / 2; // has one bit more than a half: exact in float32, and so are its neighbours
    const step = tie * 2 ** -22;
    values.push(value, tie, tie - step, tie + step, -tie);
    const even = half & 1 ? half + 1 : half;
    expected.push(half, even, half, half + 1, even | 0x8000);
  }
  values.push(Infinity, -Infinity, NaN, 1e30, 1e-30, -0);
  expected.push(0x7c00, 0xfc00, 0x7e00, 0x7c00, 0, 0x8000);
  assert.equal([...toHalf(Float32Array.from(values))], expected);
});

texts('names of shards', () => {
  assert.equal(shardNames('/d/{00008..00011}.tar'), ['/d/00008.tar', '/d/00009.tar', '/d/00010.tar', '/d/00011.tar']);
  assert.equal(shardNames('/d/{8..10}.tar'), ['/d/8.tar', '/d/9.tar', '/d/10.tar']);
  assert.equal(shardNames('/d/{a,b}-{0..1}.tar'), ['/d/a-0.tar', '/d/a-1.tar', '/d/b-0.tar', '/d/b-1.tar']);
  assert.equal(shardNames('/d/a.tar::b.tar::/e/c.tar'), ['/d/a.tar', '/d/b.tar', '/e/c.tar']);
  assert.is(shardNames('/d/{00000..10488}.tar').length, 10_489);
  for (const wrong of [
    '/d/{0..1.tar',
    '/d/0}.tar',
    '/d/{3..1}.tar',
    '/d/{}.tar',
    '/d/{x{0..1},y}.tar',
    '/d/{0..9999999}.tar',
    '',
  ]) {
    assert.throws(
      () => shardNames(wrong),
      (error: unknown) => error instanceof MiniGptError && error.code === 'ERR_ARGUMENT',
      wrong,
    );
  }
});

/** A member as GNU's tar writes it when its name is long: the name in a member of its own before it. */
function gnuLongName(name: string, contents: Buffer): Buffer {
  const header = (type: string, stub: string, size: number) => {
    const bytes = Buffer.alloc(512);
    bytes.write(stub, 0);
    bytes.write(size.toString(8).padStart(11, '0'), 124);
    bytes.write(type, 156);
    bytes.write('ustar  \0', 257, 'latin1');
    bytes.fill(' ', 148, 156);
    const sum = bytes.reduce((all, byte) => all + byte, 0);
    bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
    return bytes;
  };
  const padded = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);
  const long = Buffer.from(`${name}\0`);
  const parts = [header('L', '././@LongLink', long.length), padded(long)];
  return Buffer.concat([...parts, header('0', name.slice(0, 100), contents.length), padded(contents)]);
}

texts('members of a tar: short names, prefixes, pax and GNU long names', async () => {
  const deep = `${'folder/'.repeat(20)}deep.json`; // 149 bytes: ustar's prefix
  const pax = `${'ü'.repeat(120)}.json`;
  const plain = await tar([
    ['a.txt', 'one'],
    [deep, 'two'],
    [pax, 'three'],
    ['empty.txt', ''],
  ]);
  const gnu = gnuLongName(`${'g'.repeat(150)}.txt`, Buffer.from('four'));
  const bytes = Buffer.concat([plain.subarray(0, plain.length - 1024), gnu, Buffer.alloc(1024)]);
  const index = await readTarIndex(write(join(folder, 'names.tar'), bytes));
  assert.is(index.problem, undefined);
  const found = index.members.map(({ name, offset, size }) => [name, bytes.toString('utf8', offset, offset + size)]);
  assert.equal(found, [
    ['a.txt', 'one'],
    [deep, 'two'],
    [pax, 'three'],
    ['empty.txt', ''],
    [`${'g'.repeat(150)}.txt`, 'four'],
  ]);
});

texts('damaged and cut tars give what is before the damage', async () => {
  const whole = await tar(await pairMembers(0, 3)); // every member and header in blocks of 512, the end's mark of 1024
  const path = join(folder, 'cut.tar');
  const all = (await readTarIndex(write(path, whole))).members;
  assert.is(all.length, 6);
  for (let bytes = 512; bytes < whole.length; bytes += 256) {
    const index = await readTarIndex(write(path, whole.subarray(0, bytes)));
    const fit = all.filter(({ offset, size }) => offset + size <= bytes);
    assert.equal(index.members, fit, `cut at ${bytes}`);
    const last = all.at(-1)!;
    const markBegun = bytes >= last.offset + 512 + 512; // one block of zeros is an end
    assert.is(index.problem === undefined, markBegun, `cut at ${bytes}: ${index.problem}`);
  }
  const damaged = Buffer.from(whole);
  damaged[all[2]!.offset - 512 + 3]! ^= 1; // in the third member's name
  const index = await readTarIndex(write(path, damaged));
  assert.is(index.members.length, 2);
  assert.match(index.problem ?? '', /damaged at byte/);
  for (const [bytes, words] of [
    [Buffer.from([0x1f, 0x8b, 8, ...new Uint8Array(600)]), /gzip/],
    [Buffer.alloc(2000, 'no tar '), /no tar file/],
    [Buffer.alloc(100), /cut off/],
  ] as const) {
    assert.match((await readTarIndex(write(path, bytes))).problem ?? '', words);
  }
});

texts('a shard pairs its members by key', async () => {
  const png = await picture(1);
  const shard = await openShard(
    write(
      join(folder, 'keys.tar'),
      await tar([
        ['./a.1/x.seg.png', 'no picture of a pair'],
        ['a.1/x.JPG', png],
        ['a.1/x.txt', 'the text'],
        ['a.1/x.json', '{"caption": "the JSON"}'],
        ['b.webp', png],
        ['b.txt', 'b\r\n'], // the end of the line is none of the text's
        ['lonely.jpg', png],
        ['silent.json', '{}'],
        ['c.png', png],
        ['c.json', '{"text": "c"}'],
        ['d.png', ''],
        ['d.txt', 'd'],
        ['e.png', png],
        ['e.png', png],
        ['e.txt', 'e'],
        ['._a.jpg', 'a desktop leaves these'],
        ['notes.md', 'no member of a pair'],
      ]),
    ),
  );
  const read = async (key: string) => {
    const entry = shard.entries.find((one) => one.key === key)!;
    try {
      return (await readShardEntry(shard, entry, undefined)).turns[0]!.answer;
    } catch (error) {
      return (error as Error).message;
    }
  };
  assert.equal(
    shard.entries.map(({ key }) => key),
    ['a.1/x', 'b', 'lonely', 'silent', 'c', 'd', 'e'],
  );
  assert.is(await read('a.1/x'), 'the JSON');
  assert.is(await read('b'), 'b');
  assert.match(await read('lonely'), /no caption/);
  assert.match(await read('silent'), /no picture/);
  assert.match(await read('c'), /no text "caption": found the keys text/);
  assert.match(await read('d'), /empty \(0 bytes\)/);
  assert.match(await read('e'), /two members \.png/);
  truncateSync(join(folder, 'keys.tar'), 1024);
  assert.match(await read('b'), /bytes, it had/);
});

async function csv(text: string, piece = text.length): Promise<(string[] | string)[]> {
  async function* pieces() {
    for (let i = 0; i < text.length; i += piece) yield text.slice(i, i + piece);
  }
  const rows = [];
  for await (const { fields, problem, unclosed } of csvRows(pieces()))
    rows.push(unclosed ? 'unclosed' : (problem ?? fields));
  return rows;
}

texts('CSV, however it is cut into pieces', async () => {
  const text = 'a,b\r\n"x, ""y""",\n\n"line\r\nbreak",z\r\n,\nlast,"q"';
  const rows = [
    ['a', 'b'],
    ['x, "y"', ''],
    ['line\r\nbreak', 'z'],
    ['', ''],
    ['last', 'q'],
  ];
  for (const piece of [1, 2, 3, 7, text.length]) assert.equal(await csv(text, piece), rows);
  assert.equal(await csv(''), []);
  assert.equal(await csv('a"b,c\n'), [['a"b', 'c']]);
  assert.match((await csv('"a"b,c\n'))[0] as string, /behind a closing quote/);
  assert.equal(await csv('a,"b\nc'), ['unclosed']);
});

texts.run();
