// Pictures without a decoder: binary PPM files (P6, 8 bits), so that a test runs where there is no sharp.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { DecodedPicture } from '../lib/image.js';

export function readPpm(name: string): DecodedPicture {
  const path = fileURLToPath(new URL(`./fixtures/images/${name}`, import.meta.url));
  const bytes = readFileSync(path);
  const head = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(bytes.subarray(0, 40).toString('latin1'));
  if (!head) throw new Error(`${path}: expected a binary PPM with 8 bits a channel`);
  const [width, height] = [Number(head[1]), Number(head[2])];
  const data = bytes.subarray(head[0].length);
  if (data.length !== width * height * 3) throw new Error(`${path}: expected ${width} x ${height} x 3 bytes`);
  return { data, width, height };
}
