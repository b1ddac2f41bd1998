// Every form and kind of picture becomes the same upright RGB bytes; everything else becomes an error with a code and a reason.
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync, mkdirSync, createReadStream } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MiniGptError, type ErrorCode } from '../lib/errors.js';
import { readPicture, type Picture, type PictureOptions } from '../lib/image.js';
import { script } from './command.js';

const image = suite('image');
const folder = mkdtempSync(join(tmpdir(), 'minigpt4-image-'));
image.after(() => rmSync(folder, { recursive: true, force: true }));

// 7 x 5 pixels, all different, no symmetry
const width = 7,
  height = 5;
const rgb = Uint8Array.from({ length: width * height * 3 }, (_, i) => (i * 37 + (i % 3) * 11) & 255);
const raw = { raw: { width, height, channels: 3 as const } };
const png = await sharp(rgb, raw).png().toBuffer();
const file = join(folder, 'a picture.png');
writeFileSync(file, png);

async function failure(picture: unknown, options?: PictureOptions): Promise<MiniGptError> {
  try {
    await readPicture(picture as Picture, options);
  } catch (error) {
    assert.instance(error, MiniGptError);
    return error as MiniGptError;
  }
  throw new Error('expected an error, found a picture');
}

async function fails(code: ErrorCode, words: RegExp, picture: unknown, options?: PictureOptions): Promise<void> {
  const error = await failure(picture, options);
  assert.is(error.code, code, error.message);
  assert.match(error.message, words);
}

const forms: Record<string, () => Picture> = {
  'a path': () => file,
  'a file: URL': () => pathToFileURL(file),
  'a file: URL as text': () => pathToFileURL(file).href,
  'a base64 data: URI': () => `data:image/png;base64,${png.toString('base64')}`,
  'a percent-encoded data: URI': () =>
    `data:image/png,${[...png].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('')}`,
  'a Buffer': () => png,
  'a Uint8Array inside a larger buffer': () => new Uint8Array([1, 2, ...png, 3]).subarray(2, 2 + png.length),
  'an ArrayBuffer': () => new Uint8Array(png).buffer,
  'a Blob': () => new Blob([png]),
  'a Node stream': () => createReadStream(file, { highWaterMark: 50 }),
  'a web stream': () => new Blob([png]).stream(),
  'a sharp pipeline': () => sharp(png),
  'raw pixels': () => ({ data: rgb, width, height, channels: 3 }),
};
for (const [form, make] of Object.entries(forms)) {
  image(`reads ${form}`, async () => {
    const picture = await readPicture(make());
    assert.is(picture.width, width);
    assert.is(picture.height, height);
    assert.equal([...picture.data], [...rgb]);
  });
}

image('reads formats that lose nothing byte for byte', async () => {
  for (const bytes of [
    await sharp(rgb, raw).webp({ lossless: true }).toBuffer(),
    await sharp(rgb, raw).tiff({ compression: 'lzw' }).toBuffer(),
    await sharp(rgb, raw).png({ progressive: true, compressionLevel: 0 }).toBuffer(),
  ])
    assert.equal([...(await readPicture(bytes)).data], [...rgb]);
});

// 19 x 13 pixels with halved colour (4:2:0), written by Pillow
const jpeg420 =
  '/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5aYV' +
  'pQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//wAARCAAN' +
  'ABMDASIAAhEBAxEB/8QAFgABAQEAAAAAAAAAAAAAAAAABAUA/8QAIBAAAQQCAgMBAAAAAAAAAAAAAQACAwQFEQYhEhUiQf/EABYBAQEBAAAAAA' +
  'AAAAAAAAAAAAQCBf/EACERAAIBAwMFAAAAAAAAAAAAAAECAAMEERMhUxQiUZGh/9oADAMBAAIRAxEAPwAPIrUWYmjBdoAqxx+vUxkBLZdg9lBr' +
  '0K52SztV61SF1Z4LUZlS5XtJCp73l1r2iQ5p5ATYjzmO9zj/ANmCyhOx1byPwsk9IOd/kxNa24xP/9k=';

image('decodes a JPEG to the very bytes that Pillow gives', async () => {
  const { data, width: w, height: h } = await readPicture(Buffer.from(jpeg420, 'base64'));
  assert.equal([w, h], [19, 13]);
  // sha256 of Image.open(...).convert('RGB').tobytes()
  assert.is(
    createHash('sha256').update(data).digest('hex'),
    '96f988077b7709bc1aa00b88f2278c1d6ab276586660046fb18dd369bc5be3d6',
  );
});

image('takes RGB as stored: a colour profile changes nothing', async () => {
  const withProfile = await sharp(rgb, raw).withIccProfile('p3', { attach: true }).png().toBuffer();
  const stored = await sharp(withProfile, { ignoreIcc: true }).raw().toBuffer();
  assert.ok((await sharp(withProfile).metadata()).icc !== undefined, 'the test picture has a profile');
  assert.equal([...(await readPicture(withProfile)).data], [...stored]);
});

image('turns a picture upright as its EXIF data says', async () => {
  // orientation 6: the first row is the right side
  const turned = await sharp(rgb, raw).withMetadata({ orientation: 6 }).png().toBuffer();
  const picture = await readPicture(turned);
  assert.equal(await readPicture(sharp(turned)), picture, 'a pipeline that has not turned it');
  assert.equal(await readPicture(sharp(turned).autoOrient()), picture, 'a pipeline that has turned it');
  assert.is(picture.width, height);
  assert.is(picture.height, width);
  const expected: number[] = [];
  for (let y = 0; y < width; y++) {
    for (let x = 0; x < height; x++) {
      const from = ((height - 1 - x) * width + y) * 3;
      expected.push(...rgb.subarray(from, from + 3));
    }
  }
  assert.equal([...picture.data], expected);
});

image('lays transparency over white', async () => {
  const pixels = Uint8Array.from([10, 20, 30, 255, 10, 20, 30, 0, 100, 0, 200, 128]);
  const bytes = await sharp(pixels, { raw: { width: 3, height: 1, channels: 4 } })
    .png()
    .toBuffer();
  for (const picture of [bytes, { data: pixels, width: 3, height: 1, channels: 4 } as const]) {
    const { data } = await readPicture(picture);
    assert.equal([...data.subarray(0, 6)], [10, 20, 30, 255, 255, 255]);
    // 128 / 255 of the colour and the rest white, give or take the rounding
    const mixed = [100, 0, 200].map((value) => value * (128 / 255) + 255 * (127 / 255));
    mixed.forEach((value, c) =>
      assert.ok(Math.abs(data[6 + c]! - value) <= 1, `channel ${c}: ${data[6 + c]} for ${value}`),
    );
  }
});

image('makes three channels of gray, gray with alpha, 16 bits and CMYK', async () => {
  const gray = Uint8Array.from([0, 77, 255]);
  const size = { width: 3, height: 1 };
  const spread = [0, 0, 0, 77, 77, 77, 255, 255, 255];
  const grayPng = await sharp(gray, { raw: { ...size, channels: 1 } })
    .toColourspace('b-w')
    .png()
    .toBuffer();
  assert.is((await sharp(grayPng).metadata()).channels, 1, 'the test picture is gray');
  assert.equal([...(await readPicture(grayPng)).data], spread);
  assert.equal([...(await readPicture({ data: gray, ...size, channels: 1 })).data], spread);
  assert.equal(
    [...(await readPicture({ data: Uint8Array.from([0, 255, 77, 255, 255, 0]), ...size, channels: 2 })).data],
    spread,
  );

  const wide = Uint16Array.from([0, 77 * 257, 65535, 257, 2 * 257, 3 * 257]);
  const widePng = await sharp(wide, { raw: { width: 2, height: 1, channels: 3 } })
    .toColourspace('rgb16')
    .png()
    .toBuffer();
  assert.is((await sharp(widePng).metadata()).depth, 'ushort', 'the test picture has 16 bits');
  assert.equal([...(await readPicture(widePng)).data], [0, 77, 255, 1, 2, 3]);

  const cmyk = await sharp({ create: { width: 8, height: 8, channels: 3, background: '#ff0000' } })
    .toColourspace('cmyk')
    .jpeg()
    .toBuffer();
  assert.is((await sharp(cmyk).metadata()).space, 'cmyk', 'the test picture is CMYK');
  const { data } = await readPicture(cmyk);
  assert.is(data.length, 8 * 8 * 3);
  assert.ok(data[0]! > 180 && data[1]! < 90 && data[2]! < 90, `red stays red: ${data.subarray(0, 3).join()}`);
});

image('takes the first frame of an animation', async () => {
  const frames = Uint8Array.from({ length: 2 * 16 * 3 }, (_, i) => (i % 3 === (i < 16 * 3 ? 0 : 2) ? 255 : 0)); // red, then blue
  const gif = await sharp(frames, { raw: { width: 4, height: 8, channels: 3, pageHeight: 4 } })
    .gif()
    .toBuffer();
  assert.is((await sharp(gif).metadata()).pages, 2, 'the test picture has two frames');
  const picture = await readPicture(gif);
  assert.equal([picture.width, picture.height], [4, 4]);
  assert.equal([...picture.data.subarray(0, 3)], [255, 0, 0]);
});

image('reads a picture of one pixel', async () => {
  const bytes = await sharp(Uint8Array.from([1, 2, 3]), { raw: { width: 1, height: 1, channels: 3 } })
    .png()
    .toBuffer();
  assert.equal(await readPicture(bytes).then(({ data, width: w, height: h }) => [...data, w, h]), [1, 2, 3, 1, 1]);
});

image('refuses what is too large before decoding it, and says the size', async () => {
  // 30,000 x 30,000 pixels of nothing: a header and one chunk of a few bytes are enough to ask for 2.7 GB
  const svg = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="30000" height="30000"/>');
  await fails('ERR_IMAGE', /too large: expected at most 100 million pixels, found 30000 x 30000 \(900 million\)/, svg);
  await fails('ERR_IMAGE', /expected at most 34 pixels, found 7 x 5 \(35\)/, png, { maxPixels: 34 });
  await fails('ERR_IMAGE', /found 7 x 5/, { data: rgb, width, height, channels: 3 }, { maxPixels: 34 });
  assert.is((await readPicture(png, { maxPixels: 35 })).width, 7);
  const endless = Readable.from(
    (function* () {
      for (;;) yield Buffer.alloc(1000);
    })(),
    { objectMode: false },
  );
  await fails('ERR_IMAGE', /at most 5000 bytes/, endless, { maxBytes: 5000 });
});

image('says what is wrong with a file', async () => {
  const text = join(folder, 'text.jpg');
  writeFileSync(text, 'this is not a picture');
  await fails('ERR_IMAGE', /text\.jpg is no picture that can be read/, text);
  const empty = join(folder, 'empty.png');
  writeFileSync(empty, '');
  await fails('ERR_IMAGE', /empty\.png is empty \(0 bytes\)/, empty);
  await fails('ERR_IMAGE', /empty \(0 bytes\)/, Buffer.alloc(0));
  mkdirSync(join(folder, 'folder.jpg'));
  await fails('ERR_IMAGE', /expected a picture, found a directory/, join(folder, 'folder.jpg'));
  await fails('ERR_FILE_NOT_FOUND', /there is no picture at .*missing\.jpg/, join(folder, 'missing.jpg'));
  await fails('ERR_FILE_NOT_FOUND', /there is no picture at/, join(file, 'below-a-file.jpg'));
  const jpeg = await sharp({ create: { width: 300, height: 300, channels: 3, background: '#0a0' } })
    .jpeg()
    .toBuffer();
  const noise = Uint8Array.from({ length: 300 * 300 * 3 }, (_, i) => (Math.imul(i, 2654435761) >>> 13) & 255);
  const full = await sharp(noise, { raw: { width: 300, height: 300, channels: 3 } })
    .jpeg()
    .toBuffer();
  assert.is((await readPicture(jpeg)).width, 300);
  await fails('ERR_IMAGE', /damaged or cut off/, full.subarray(0, full.length / 2));
  await fails('ERR_IMAGE', /damaged or cut off|no picture/, png.subarray(0, png.length - 30));
});

image('says what is wrong with what was given', async () => {
  await fails('ERR_UNSUPPORTED', /https:\/\/example\.org\/a\.jpg is not fetched/, 'https://example.org/a.jpg');
  await fails('ERR_UNSUPPORTED', /not fetched/, new URL('http://example.org/a.jpg'));
  await fails('ERR_ARGUMENT', /expected a picture .* found number/, 42);
  await fails('ERR_ARGUMENT', /found undefined/, undefined);
  await fails('ERR_ARGUMENT', /found null/, null);
  await fails('ERR_ARGUMENT', /an object of Map/, new Map());
  await fails('ERR_ARGUMENT', /empty string/, '');
  await fails('ERR_ARGUMENT', /zero byte/, 'a\0b.png');
  await fails('ERR_ARGUMENT', /no usable file: URL/, 'file://somewhere/a.png');
  await fails('ERR_IMAGE', /no comma/, 'data:image/png;base64');
  await fails('ERR_IMAGE', /not base64/, 'data:image/png;base64,!!!!');
  await fails('ERR_IMAGE', /empty/, 'data:image/png;base64,');
  await fails('ERR_ARGUMENT', /expected 105 bytes for 7 x 5 with 3 channels, found 104 bytes/, {
    data: rgb.subarray(1),
    width,
    height,
    channels: 3,
  });
  await fails('ERR_ARGUMENT', /channels, found 5/, { data: rgb, width, height, channels: 5 });
  await fails('ERR_ARGUMENT', /whole width of 1 or more, found 0/, { data: rgb, width: 0, height, channels: 3 });
  await fails('ERR_ARGUMENT', /found NaN/, { data: rgb, width, height: NaN, channels: 3 });
  await fails('ERR_ARGUMENT', /data of type Uint8Array/, { data: [1, 2, 3], width: 1, height: 1, channels: 3 });
  await fails(
    'ERR_FILE_READ',
    /stream failed: the line is cut/,
    Readable.from(
      (async function* () {
        yield png.subarray(0, 9);
        throw new Error('the line is cut');
      })(),
    ),
  );
  await fails('ERR_ARGUMENT', /chunks of bytes/, Readable.from(['text']));
});

image('a stream that fails before anything else is loaded is an error like any other', async () => {
  const { code, stdout, stderr } = await script(`
    const { readPicture } = await import(lib + 'image.ts');
    const { createReadStream } = await import('node:fs');
    const open = () => createReadStream(${JSON.stringify(join(folder, 'missing.jpg'))});
    await readPicture(open()).catch((error) => console.log(error.code, error.message));
    await readPicture(open(), { signal: AbortSignal.abort() }).catch((error) => console.log(error.code));
    await new Promise((resume) => setTimeout(resume, 50));
  `);
  assert.is(code, 0, stderr);
  assert.match(stdout, /^ERR_FILE_READ the picture's stream failed: ENOENT.*\nERR_ABORTED\n$/);
});

image('raw pixels leave the event loop to others', async () => {
  const side = 3000;
  const data = new Uint8Array(side * side * 4).map((_, i) => (i * 7 + (i >> 9)) & 255);
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  const picture = await readPicture({ data, width: side, height: side, channels: 4 });
  clearInterval(timer);
  // 9 million pixels take 35 slices
  assert.ok(turns >= 5, `${turns} turns of others`);
  for (const p of [0, 2 ** 18 - 1, 2 ** 18, 5_000_003, side * side - 1]) {
    const alpha = data[p * 4 + 3]!;
    for (let c = 0; c < 3; c++)
      assert.is(picture.data[p * 3 + c], Math.round((data[p * 4 + c]! * alpha + 255 * (255 - alpha)) / 255));
  }
  const stop = new AbortController();
  const aborted = fails(
    'ERR_ABORTED',
    /aborted/,
    { data, width: side, height: side, channels: 4 },
    { signal: stop.signal },
  );
  stop.abort();
  await aborted;
});

image("a decoder's reason is told to its end", async () => {
  // sharp has a heading alone for this one: nothing follows its colon
  assert.match((await failure(png.subarray(0, 20))).message, /cut off: Input buffer has corrupt header$/);
  const avif = await sharp(rgb, raw).avif().toBuffer();
  // the first lines say only where libvips looked
  assert.match((await failure(avif.subarray(0, 20))).message, /corrupt header: heif: \S.*\S$/);
});

image('obeys a signal', async () => {
  await fails('ERR_ABORTED', /aborted/, file, { signal: AbortSignal.abort() });
  const stop = new AbortController();
  const silent = new Readable({ read() {} });
  setTimeout(() => stop.abort(), 20);
  await fails('ERR_ABORTED', /aborted/, silent, { signal: stop.signal });
});

image.run();
