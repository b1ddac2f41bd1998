// Records of measurements: when and on what they were taken, then what was measured, as JSON that the repository's format check accepts.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { describeMachine } from '../lib/bench/machine.js';

export interface RecordedFile {
  name: string;
  bytes: number;
  sha256: string;
}

/** What tells a measured file from others; its folder belongs to the machine, not to the record. */
export async function describeFile(path: string): Promise<RecordedFile> {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(path)) hash.update(piece as Buffer);
  return { name: basename(path), bytes: (await stat(path)).size, sha256: hash.digest('hex') };
}

/** Writes `record` behind the date and the machine. Returns the whole. */
export async function writeRecord<T extends object>(path: string, record: T) {
  const whole = { date: new Date().toISOString(), machine: describeMachine(), ...record };
  const { format } = await import('prettier'); // here, so that processes which are measured do not hold it
  await writeFile(path, await format(JSON.stringify(whole, undefined, 2), { parser: 'json', printWidth: 120 }));
  return whole;
}
