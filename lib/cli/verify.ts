// `minigpt4 verify DIR`: a table of every stage's largest error, the allowed one, and whether it passes.
import { InvalidArgumentError, type Command } from 'commander';
import { WRITABLE_TYPES, type WritableType } from '../convert/options.js';
import { checkLoad } from '../load-options.js';
import type { StageResult } from '../verify/measure.js';
import type { Tolerance } from '../verify/tolerance.js';
import type { ComputingOptions } from '../verify/verify.js';
import { nearest } from '../nearest.js';
import { exitCodes, flagOf, inFlags, jsonLine, parseNumber, picked } from './program.js';

function parseType(text: string): WritableType {
  const type = WRITABLE_TYPES.find((name) => name === text.toLowerCase());
  if (type) return type;
  const meant = nearest(text, WRITABLE_TYPES);
  throw new InvalidArgumentError(
    `Expected one of ${WRITABLE_TYPES.join(', ')}.${meant ? ` Did you mean ${meant}?` : ''}`,
  );
}

export function register(program: Command): void {
  program
    .command('verify')
    .summary("compare every stage with the reference's numbers")
    .description(
      "Converts a fixture directory's small checkpoints, runs every stage of the model on this machine and compares it with the reference's numbers.",
    )
    .argument('<dir>', 'fixture directory (expected.json, expected.safetensors, checkpoints, images)')
    .option('--type <type>', 'type of the converted weights', parseType, 'f32' as WritableType)
    .option('--device <name>', 'what computes: cpu, cuda, cuda:N or auto (default: cpu)')
    .option('--gpu-layers <n>', 'layers of the language model on the GPU (default: as many as fit)', parseNumber)
    .option('--vision-device <name>', "what computes the picture's side: gpu or cpu (default: gpu if it fits)")
    .option('--gpu-memory <bytes>', "of the GPU's memory at most (default: what is free)", parseNumber)
    .option('--threads <n>', "threads that compute (default: the machine's cores)", parseNumber)
    .option('--json', 'one JSON object: type, device, allowed, pass, stages')
    .addHelpText(
      'after',
      `
Examples:
  $ minigpt4 verify test/fixtures/tiny-llama2
  $ minigpt4 verify test/fixtures/tiny-llama2 --type q8_0 --json`,
    )
    .action(run);
}

interface Flags extends ComputingOptions {
  type: WritableType;
  json?: boolean;
}

async function run(directory: string, flags: Flags): Promise<void> {
  const computing: ComputingOptions = checkLoad(
    picked(flags, ['device', 'gpuLayers', 'visionDevice', 'gpuMemory', 'threads']),
    'verify',
    flagOf,
  );
  const { verify } = await import('../verify/verify.js');
  let head = line('stage', 'largest error', 'allowed', ''); // comes with the first result: what cannot begin has no table
  let computed: { device: string; allowed: Tolerance } | undefined;
  const stages = await verify(directory, {
    type: flags.type,
    ...computing,
    onDevice: (device, allowed) => (computed = { device, allowed }),
    ...(flags.json
      ? {}
      : {
          onResult: (stage) => {
            process.stdout.write(head + row(stage));
            head = '';
          },
        }),
  }).catch(inFlags);
  const failed = stages.filter(({ pass }) => !pass).length;
  if (flags.json) {
    const { stage, gradient, because } = computed!.allowed;
    const allowed = { stage, gradient, because };
    process.stdout.write(jsonLine({ type: flags.type, device: computed!.device, allowed, pass: failed === 0, stages }));
  } else process.stdout.write(`${foot(computed!)}${flags.type}: ${stages.length - failed} passed, ${failed} failed\n`);
  if (failed > 0) process.exitCode = exitCodes.failed;
}

/** What the allowed errors come from. */
function foot({ device, allowed: { stage, gradient, because } }: { device: string; allowed: Tolerance }): string {
  const shares = `${stage.toExponential(1)} for a stage, ${gradient.toExponential(1)} for losses and gradients`;
  return `computed by ${device}: ${because}; of the largest value ${shares}\n`;
}

function line(stage: string, error: string, allowed: string, rest: string): string {
  return `${stage.padEnd(30)}${error.padStart(22)}${allowed.padStart(12)}  ${rest}`.trimEnd() + '\n';
}

function row({ stage, error, allowed, unit, pass, note }: StageResult): string {
  const number = (value: number) =>
    Number.isInteger(value) ? String(value) : value < 1e-3 ? value.toExponential(1) : value.toPrecision(3);
  const verdict = allowed === undefined ? 'for information' : pass ? 'pass' : 'FAIL';
  return line(
    stage,
    `${number(error)} ${unit}`,
    allowed === undefined ? '' : number(allowed),
    note === undefined ? verdict : `${verdict} (${note})`,
  );
}
