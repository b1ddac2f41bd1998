// Records of measurements, as JSON that the repository's format check accepts.
import { writeFile } from 'node:fs/promises';
import { format } from 'prettier';

export async function writeRecord(path: string, record: object): Promise<void> {
  await writeFile(path, await format(JSON.stringify(record, undefined, 2), { parser: 'json', printWidth: 120 }));
}
