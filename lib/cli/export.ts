// `minigpt4 export CHECKPOINT`: the trained projection as a file for the original, for --projection, or as safetensors.
import { realpath } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import type { Command } from 'commander';
import { MiniGptError } from '../errors.js';
import { errorObject, exitCodes, jsonLine } from './program.js';
import { interruptSignal, say } from './terminal.js';

interface Flags {
  pth?: string;
  gguf?: string;
  safetensors?: string;
  model?: string;
  json?: boolean;
}

export function register(program: Command): void {
  program
    .command('export')
    .summary('write a trained projection for other programs')
    .description(
      'Takes the projection out of a training checkpoint, a .pth or safetensors file or a GGUF file and writes it, in float32, as another one.',
    )
    .argument('<checkpoint>', "file that holds the projection, or a run's folder, its latest or best")
    .option('--pth <file>', "PyTorch checkpoint as the original's model.ckpt takes it")
    .option('--gguf <file>', 'projection file as --projection takes it')
    .option('--safetensors <file>', 'llama_proj.weight and llama_proj.bias')
    .option('--model <file>', 'model file that it is for: with --gguf where its width is not a published one')
    .option('--json', 'one JSON object a file: path, format, input, output, bytes, source')
    .addHelpText(
      'after',
      `
Examples:
  $ minigpt4 export output/stage2 --pth stage2.pth
  $ minigpt4 export pretrained_minigpt4_7b.pth --gguf projection.gguf`,
    )
    .action(run);
}

async function run(checkpoint: string, flags: Flags): Promise<void> {
  const { exportFormats, exportProjection } = await import('../export.js');
  const wanted = exportFormats.flatMap((format) => {
    const out = flags[format];
    return out === undefined ? [] : [{ format, out }];
  });
  if (wanted.length === 0)
    throw new MiniGptError('ERR_ARGUMENT', 'export: expected --pth, --gguf or --safetensors with the file to write');
  await checkDistinct(wanted);
  const signal = interruptSignal();
  try {
    for (const { format, out } of wanted) {
      const result = await exportProjection({
        checkpoint,
        format,
        out,
        signal,
        ...(flags.model === undefined ? {} : { model: flags.model }),
      });
      if (flags.json) process.stdout.write(jsonLine(result));
      else
        process.stdout.write(`${out}: a projection from ${result.input} to ${result.output}, ${result.bytes} bytes\n`);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    process.exitCode = exitCodes.interrupted;
    if (flags.json) process.stdout.write(jsonLine(errorObject(error)));
    else say('minigpt4: interrupted; the file in work was not written');
  }
}

/** Error: ERR_ARGUMENT (two formats are to be one file). */
async function checkDistinct(wanted: readonly { format: string; out: string }[]): Promise<void> {
  const formats = new Map<string, string>();
  for (const { format, out } of wanted) {
    const path = resolve(out);
    // a folder that is not there is told when the file is written
    const folder = await realpath(dirname(path)).catch(() => dirname(path));
    const place = join(folder, basename(path));
    const other = formats.get(place);
    if (other !== undefined)
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `--${format}: expected another file than that of --${other}, found ${out}`,
      );
    formats.set(place, format);
  }
}
