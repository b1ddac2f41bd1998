// `minigpt4 inspect FILE`: what a file of weights is and holds, as a table or as JSON.
import type { Command } from 'commander';
import { describeFile, type FileDescription } from '../convert/describe-file.js';
import { jsonLine } from './program.js';

/** Longer arrays (a vocabulary) are shown by their beginning. */
const SHOWN_ELEMENTS = 6;
const SHOWN_TEXT = 100;

export function register(program: Command): void {
  program
    .command('inspect')
    .summary('show what a file of weights holds')
    .description(
      'Shows what a file holds: GGUF, PyTorch (.pth, .bin), safetensors, or a Hugging Face folder. Nothing in it is executed.',
    )
    .argument('<file>', 'the file or folder')
    .option('--tensors', 'list every tensor (otherwise only where there are at most 60)')
    .option('--json', 'one JSON object with everything, arrays in full')
    .addHelpText(
      'after',
      `
Examples:
  $ minigpt4 inspect minigpt4-7b.gguf
  $ minigpt4 inspect pretrained_minigpt4_7b.pth --tensors
  $ minigpt4 inspect eva_vit_g.pth --json`,
    )
    .action(run);
}

async function run(path: string, flags: { tensors?: boolean; json?: boolean }): Promise<void> {
  const file = await describeFile(path);
  process.stdout.write(flags.json ? jsonLine(file) : table(file, flags.tensors ?? file.tensors.length <= 60));
}

function table(file: FileDescription, withTensors: boolean): string {
  const lines = [
    `${file.path}: ${file.what}`,
    `${(file.bytes / 1e6).toFixed(1)} MB, ${file.tensors.length} tensors, ${file.parameters.toLocaleString('en')} numbers`,
  ];
  for (const note of file.notes) lines.push(`  ${note}`);
  if (file.keys.length) lines.push('', ...columns(file.keys.map(({ key, type, value }) => [key, type, short(value)])));
  lines.push(
    '',
    ...columns(
      file.types.map(({ type, tensors, bytes }) => [type, `${tensors} tensors`, `${(bytes / 1e6).toFixed(1)} MB`]),
    ),
  );
  if (withTensors)
    lines.push('', ...columns(file.tensors.map(({ name, type, shape }) => [name, type, `[${shape.join(', ')}]`])));
  else lines.push('', '--tensors lists every tensor');
  // Names come from a file that anybody may have made; control characters could move the cursor or worse.
  return `${lines.map((line) => line.replace(/[\x00-\x1f\x7f-\x9f]/g, '\ufffd')).join('\n')}\n`;
}

function columns(rows: string[][]): string[] {
  const widths = [0, 1].map((column) => rows.reduce((most, row) => Math.max(most, row[column]!.length), 0));
  return rows.map(
    ([first, second, third]) => `  ${first!.padEnd(widths[0]!)}  ${second!.padEnd(widths[1]!)}  ${third}`,
  );
}

function short(value: FileDescription['keys'][number]['value']): string {
  if (Array.isArray(value)) {
    const shown = value
      .slice(0, SHOWN_ELEMENTS)
      .map((item) => (typeof item === 'string' ? JSON.stringify(item.slice(0, SHOWN_TEXT)) : String(item)));
    return `[${shown.join(', ')}${value.length > SHOWN_ELEMENTS ? `, … ${value.length} in all` : ''}]`;
  }
  if (typeof value === 'string')
    return JSON.stringify(value.length > SHOWN_TEXT ? `${value.slice(0, SHOWN_TEXT)}…` : value);
  return String(typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(7)) : value);
}
