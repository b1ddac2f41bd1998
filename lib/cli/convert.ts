// `minigpt4 convert`: checkpoints as people have them to one model file, with a progress bar.
import type { Command } from 'commander';
import { LAYOUTS, WRITABLE_TYPES, type ConvertOptions, type ConvertProgress } from '../convert/options.js';
import { MiniGptError } from '../errors.js';
import { templateNames } from '../prompt.js';
import { errorObject, exitCodes, jsonLine } from './program.js';
import { interruptSignal, say } from './terminal.js';

export function register(program: Command): void {
  const types = WRITABLE_TYPES.join(', ');
  program
    .command('convert')
    .summary('make a model file from checkpoints')
    .description(
      'Makes one GGUF file from checkpoints as they were published: PyTorch (.pth, .bin), safetensors, Hugging Face folders, GGUF.',
    )
    .option('--vit <file>', "eva_vit_g.pth, or weights that are named as Salesforce/blip2-*'s (file or folder)")
    .option(
      '--qformer <file>',
      'blip2_pretrained_flant5xxl.pth, or the like of --vit; left out: the variant without a Q-Former',
    )
    .option('--projection <file>', 'pretrained_minigpt4*.pth')
    .option(
      '--llm <dir|file.gguf>',
      "the language model's Hugging Face folder, or a llama GGUF file, which is taken as it is",
    )
    .option('--delta-base <dir>', 'LLaMA folder that the Vicuna v0 delta in --llm is added to')
    .option('--config <file>', 'JSON with head counts and image size; not needed for the published sizes')
    .option('--out <model.gguf>', 'the file to write (needed); replaced only when everything went well')
    .option('--model <file.gguf>', 'a model file that is taken as it is, for --layout')
    .option('--type <type>', `type of the matrices: ${types} (default: f16)`)
    .option('--vit-type <type>', "type of the ViT's matrices in place of --type's")
    .option('--qformer-type <type>', "type of the Q-Former's (with --type f16 or bf16 they stay f32, as published)")
    .option('--llm-type <type>', "type of the language model's")
    .option(
      '--layout <layout>',
      `${LAYOUTS.join(', ')}: matrices as this program's CPU code computes with them, so that loading is mapping the file; not for GPUs`,
    )
    .option('--only <part>', 'write one part: vision, llm or projection')
    .option(
      '--template <name>',
      `conversation template: ${templateNames.join(', ')} (default: vicuna0, without a Q-Former llama2)`,
    )
    .option('--name <text>', 'general.name of the file (default: the name of --out)')
    .option('--json', 'one JSON object: path, bytes, architecture, tensors, parameters, types, sources, warnings')
    .addHelpText(
      'after',
      `
Norms and biases are f32, and so is the projection. Rows that are no multiple of 256 take the next type of blocks of 32 (q4_k: q5_0,
q5_k: q5_1, q6_k: q8_0), rows that are no multiple of 32 f16. Below six bits the language model's output matrix is q6_k.

Examples:
  $ minigpt4 convert --vit eva_vit_g.pth --qformer blip2_pretrained_flant5xxl.pth --projection pretrained_minigpt4_7b.pth \\
      --llm vicuna-7b --type q4_k --vit-type q8_0 --qformer-type q8_0 --out minigpt4-7b.gguf
  $ minigpt4 convert --vit eva_vit_g.pth --projection pretrained_minigpt4_llama2_7b.pth --llm llama-2-7b-chat.Q4_K_M.gguf --out minigpt4-llama2.gguf
  $ minigpt4 convert --llm vicuna-7b-delta-v0 --delta-base llama-7b --only llm --out vicuna-7b-v0.gguf
  $ minigpt4 convert --model minigpt4-7b.gguf --layout cpu --out minigpt4-7b-cpu.gguf`,
    )
    .action(run);
}

interface Flags extends Omit<ConvertOptions, 'signal' | 'onProgress' | 'out'> {
  out?: string;
  json?: boolean;
}

async function run({ json, out, ...options }: Flags): Promise<void> {
  // not commander's to require: it would name a missing option before an unknown one
  if (out === undefined) throw new MiniGptError('ERR_ARGUMENT', '--out: expected the file to write, found none');
  const { convert } = await import('../convert.js');
  const signal = interruptSignal();
  const progress = json || !process.stderr.isTTY ? undefined : await progressBar();
  try {
    const result = await convert({
      ...options,
      out,
      signal,
      ...(progress ? { onProgress: progress.update } : {}),
    });
    progress?.stop();
    if (json) {
      process.stdout.write(jsonLine(result));
      return;
    }
    for (const warning of result.warnings) say(`minigpt4: warning: ${warning}`);
    const types = result.types.map(({ type, tensors }) => `${tensors} ${type}`).join(', ');
    process.stdout.write(
      `${result.path}: ${megabytes(result.bytes)} MB, ${megabytes(result.parameters)} million numbers, ${result.tensors} tensors (${types})\n`,
    );
  } catch (error) {
    if (!signal.aborted) throw error;
    process.exitCode = exitCodes.interrupted;
    if (json) process.stdout.write(jsonLine(errorObject(error)));
    else say('minigpt4: interrupted; nothing was written');
  } finally {
    progress?.stop();
  }
}

async function progressBar(): Promise<{ update(progress: ConvertProgress): void; stop(): void }> {
  const { default: cliProgress } = await import('cli-progress');
  const bar = new cliProgress.SingleBar(
    {
      format: '{stage} [{bar}] {percentage} % | {eta_formatted} | {what}',
      hideCursor: true,
      clearOnComplete: true,
      stopOnComplete: false,
      stream: process.stderr,
    },
    cliProgress.Presets.rect,
  );
  let stage = '';
  return {
    update(progress) {
      const about = { stage: progress.stage === 'hash' ? 'checking' : 'writing', what: progress.what.slice(-40) };
      if (stage !== progress.stage) {
        if (stage) bar.stop();
        stage = progress.stage;
        bar.start(progress.total, progress.done, about);
      }
      bar.update(progress.done, about);
    },
    stop: () => bar.stop(),
  };
}

const megabytes = (count: number): string => (count / 1e6).toFixed(1);
