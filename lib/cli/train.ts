// `minigpt4 train CONFIG`: trains a projection; one line a step, a bar on a terminal, files in the run's folder, a page on request.
import { Writable } from 'node:stream';
import { InvalidArgumentError, type Command } from 'commander';
import { MiniGptError, toMiniGptError } from '../errors.js';
import type { ProcessGroup } from '../train/group.js';
import type { RunLog } from '../train/log.js';
import type { TrainFacts, TrainOptions } from '../train/train.js';
import { errorObject, exitCodes, jsonLine, parseNumber } from './program.js';
import { interruptSignal, say } from './terminal.js';

interface Flags {
  set?: string[];
  resume?: string | true;
  output?: string;
  nprocPerNode?: number;
  watch?: number | true;
  host?: string;
  device?: string;
  threads?: number;
  json?: boolean;
}

function parseWhole(text: string): number {
  const value = parseNumber(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('Expected a whole number.');
  return value;
}

export function register(program: Command): void {
  program
    .command('train')
    .argument('<config>', 'YAML file with the sections model, datasets and run')
    .summary('train a projection')
    .description(
      'Trains the projection between the frozen vision side and the frozen language model, as a configuration says (configs/). ' +
        'Ctrl-C writes a checkpoint; --resume goes on from it, with the same numbers as without the stop.',
    )
    .option(
      '--set <key=value>',
      'change a key of the configuration, as run.max_epoch=1 (may be given several times)',
      (change: string, all: string[] = []) => [...all, change],
    )
    .option('--resume [path]', "go on from a checkpoint or a run's folder (default: the newest run in run.output_dir)")
    .option('--output <dir>', "the run's folder (default: a new one in run.output_dir)")
    .option('--nproc-per-node <n>', 'start so many processes here, each with batches of its own', parseWhole)
    .option('--watch [port]', 'serve a page with the curves and answers, live (default: 6060)', parseWhole)
    .option('--host <address>', 'the address that --watch listens on (default: 127.0.0.1, this machine alone)')
    .option('--device <name>', 'what computes (default: run.device)')
    .option('--threads <n>', "threads that compute, of each process (default: the machine's cores)", parseWhole)
    .option('--json', 'one JSON object a line: the run, then every event')
    .addHelpText(
      'after',
      `
Several machines: start one process each with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun and srun set them.

Examples:
  $ minigpt4 train configs/sample.yaml
  $ minigpt4 train configs/stage2.yaml --set run.max_epoch=1 --set model.ckpt=stage1.pth --watch
  $ minigpt4 train configs/stage1.yaml --nproc-per-node 2
  $ minigpt4 train configs/stage1.yaml --resume`,
    )
    .action(run);
}

async function run(config: string, flags: Flags): Promise<void> {
  const { nprocPerNode: processes = 1, threads } = flags;
  if (processes === 0) throw new MiniGptError('ERR_ARGUMENT', '--nproc-per-node: expected 1 or more, found 0');
  if (processes > 1) {
    if (process.env['RANK'] !== undefined)
      throw new MiniGptError(
        'ERR_ARGUMENT',
        '--nproc-per-node: expected no RANK in the environment, where processes are started by something else, found one',
      );
    const { launch } = await import('../train/launch.js');
    const argv = [process.argv[1]!, ...withoutProcesses(process.argv.slice(2))];
    process.exitCode = await launch(processes, threads === undefined ? { argv } : { argv, threads });
    return;
  }
  const signal = interruptSignal();
  const { joinGroup } = await import('../train/processes.js');
  let group: ProcessGroup | undefined;
  let failure: MiniGptError | undefined;
  try {
    group = await joinGroup(process.env, { signal, onWait: say });
    await trainIn(group, config, flags, signal);
  } catch (error) {
    failure = toMiniGptError(error);
    if (!signal.aborted) throw failure;
    process.exitCode = exitCodes.interrupted;
    if (flags.json) process.stdout.write(jsonLine(errorObject(failure)));
    else say(`minigpt4: interrupted: ${failure.message}`);
  } finally {
    await group?.close(failure);
  }
}

async function trainIn(group: ProcessGroup, config: string, flags: Flags, signal: AbortSignal): Promise<void> {
  const [{ train }, { threadsGiven }] = await Promise.all([import('../train/train.js'), import('../train/place.js')]);
  const threads = flags.threads ?? threadsGiven();
  const set = [...(flags.set ?? [])];
  if (threads !== undefined) set.push(`run.threads=${threads}`);
  if (flags.device !== undefined) set.push(`run.device=${flags.device}`);
  const options: TrainOptions = { group, signal, set, onWarning: (words) => say(`minigpt4: warning: ${words}`) };
  if (flags.resume !== undefined) options.resume = flags.resume;
  if (flags.output !== undefined) options.output = flags.output;
  const training = train(config, options);
  const facts = await training.facts();
  if (group.rank !== 0) {
    for await (const _ of training); // the first process tells
    return;
  }
  const told = await open(facts, flags).catch(async (error: unknown) => {
    await training.close();
    throw error;
  });
  let failure: MiniGptError | undefined;
  let last: string | undefined;
  try {
    for await (const event of training) {
      told.log.event(event);
      if (event.kind === 'checkpoint') last = event.path;
      if (flags.json) process.stdout.write(jsonLine(event));
    }
  } catch (error) {
    failure = toMiniGptError(error);
    throw failure;
  } finally {
    await told.log.close(failure?.message);
    await told.watch?.close();
  }
  if (!flags.json && last !== undefined) process.stdout.write(`${last}\n`);
}

async function open(facts: TrainFacts, flags: Flags): Promise<{ log: RunLog; watch?: { close(): Promise<void> } }> {
  const { notices, ...run } = facts;
  if (flags.json) process.stdout.write(jsonLine({ kind: 'run', ...facts }));
  else for (const notice of notices) say(`minigpt4: ${notice}`);
  const { openLog } = await import('../train/log.js');
  const log = await openLog(run, {
    folder: facts.folder,
    terminal: !flags.json && process.stderr.isTTY === true,
    ...(flags.json ? { stream: warnings() } : {}),
  });
  if (flags.watch === undefined) return { log };
  try {
    const { watch } = await import('../train/watch/watch.js');
    const page = await watch(facts.folder, {
      ...(typeof flags.watch === 'number' ? { port: flags.watch } : {}),
      ...(flags.host === undefined ? {} : { host: flags.host }),
    });
    say(`watch at ${page.url}`);
    return { log, watch: page };
  } catch (error) {
    await log.close(toMiniGptError(error).message);
    throw error;
  }
}

/** Where the events are told as JSON, of the lines for people only warnings go to standard error. */
function warnings(): Writable {
  return new Writable({
    write(chunk: Buffer, _, done) {
      if (chunk.includes('minigpt4: warning:')) process.stderr.write(chunk);
      done();
    },
  });
}

/** The command line of one of the processes. */
function withoutProcesses(words: readonly string[]): string[] {
  return words.filter(
    (word, i) => !/^--nproc-per-node(=|$)/.test(word) && (i === 0 || words[i - 1] !== '--nproc-per-node'),
  );
}
