// `minigpt4 train CONFIG`: trains a projection; one line a step, a bar on a terminal, files in the run's folder, a page on request.
import { once } from 'node:events';
import { createServer } from 'node:net';
import { Writable } from 'node:stream';
import { InvalidArgumentError, type Command } from 'commander';
import { MiniGptError, toMiniGptError } from '../errors.js';
import type { ProcessGroup } from '../train/group.js';
import type { RunLog } from '../train/log.js';
import type { TrainFacts, TrainOptions } from '../train/train.js';
import type { Watch } from '../train/watch/watch.js';
import { asTold, errorObject, exitCodes, flagOf, isTold, jsonLine, parseNumber } from './program.js';
import { interruptSignal, say } from './terminal.js';

interface Flags {
  set?: string[];
  resume?: string | true;
  output?: string;
  nprocPerNode?: number;
  watch?: number | true;
  host?: string;
  device?: string;
  visionDevice?: string;
  gpuMemory?: number;
  imageBatch?: number;
  threads?: number;
  json?: boolean;
}

function parseWhole(text: string): number {
  const value = parseNumber(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('Expected a whole number.');
  return value;
}

function parsePort(text: string): number {
  const value = parseNumber(text);
  if (!Number.isInteger(value) || value < 0 || value > 65535)
    throw new InvalidArgumentError('Expected a port, a whole number from 0 (any that is free) to 65535.');
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
    .option('--watch [port]', 'serve a page with the curves and answers, live (default: 6060)', parsePort)
    .option('--host <address>', 'the address that --watch listens on (default: 127.0.0.1, this machine alone)')
    .option('--device <name>', 'what computes (default: run.device)')
    .option(
      '--vision-device <name>',
      "what computes the picture's side: gpu or cpu (default: run.vision_device, or gpu if it fits)",
    )
    .option(
      '--gpu-memory <bytes>',
      "of the GPU's memory at most (default: run.gpu_memory, or what is free)",
      parseWhole,
    )
    .option(
      '--image-batch <n>',
      'pictures encoded at once at most (default: run.image_batch, or what the memory holds)',
      parseWhole,
    )
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
  if (flags.host !== undefined && flags.watch === undefined)
    throw new MiniGptError('ERR_ARGUMENT', '--host: expected --watch beside it, which listens there, found none');
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
    else if (!isTold(failure)) say(`minigpt4: interrupted: ${failure.message}`);
  } finally {
    await group?.close(failure);
  }
}

async function trainIn(group: ProcessGroup, config: string, flags: Flags, signal: AbortSignal): Promise<void> {
  const [{ checkTrainOptions, train }, { threadsGiven }] = await Promise.all([
    import('../train/train.js'),
    import('../train/place.js'),
  ]);
  const threads = flags.threads ?? threadsGiven();
  const set = [...(flags.set ?? [])];
  if (threads !== undefined) set.push(`run.threads=${threads}`);
  const { device, visionDevice, gpuMemory, imageBatch } = flags;
  const wishes = { device, vision_device: visionDevice, gpu_memory: gpuMemory, image_batch: imageBatch };
  for (const [key, value] of Object.entries(wishes)) if (value !== undefined) set.push(`run.${key}=${value}`);
  const options: TrainOptions = { group, signal, set, onWarning: (words) => say(`minigpt4: warning: ${words}`) };
  if (flags.resume !== undefined) options.resume = flags.resume;
  if (flags.output !== undefined) options.output = flags.output;
  checkTrainOptions(options, 'train', flagOf);
  if (group.rank === 0 && flags.watch !== undefined) await tryToListen(flags.watch, flags.host);
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
    throw flags.json ? failure : asTold(failure); // the log's last line is the reason
  } finally {
    await told.log.close(failure?.message);
    await told.watch?.close();
  }
  if (!flags.json && last !== undefined) process.stdout.write(`${last}\n`);
}

async function open(facts: TrainFacts, flags: Flags): Promise<{ log: RunLog; watch?: Watch }> {
  const { notices, ...run } = facts;
  if (flags.json) process.stdout.write(jsonLine({ kind: 'run', ...facts }));
  else for (const notice of notices) say(`minigpt4: ${notice}`);
  // the page's address stands above the bar, which the log begins
  const page = flags.watch === undefined ? undefined : await serve(facts.folder, flags.watch, flags.host);
  try {
    const { openLog } = await import('../train/log.js');
    const log = await openLog(run, {
      folder: facts.folder,
      terminal: !flags.json && process.stderr.isTTY === true,
      ...(flags.json ? { stream: warnings() } : {}),
    });
    return { log, ...(page ? { watch: page } : {}) };
  } catch (error) {
    await page?.close();
    throw error;
  }
}

async function serve(folder: string, port: number | true, host: string | undefined): Promise<Watch> {
  const { watch } = await import('../train/watch/watch.js');
  const page = await watch(folder, { ...(port === true ? {} : { port }), ...(host === undefined ? {} : { host }) });
  say(`watch at ${page.url}`);
  return page;
}

/**
 * Listens for a moment where the page will be, before a model is loaded and a folder made for nothing. Errors: ERR_ARGUMENT (no address of
 * this machine), ERR_NETWORK (the port is taken).
 */
async function tryToListen(port: number | true, host = '127.0.0.1'): Promise<void> {
  if (host === '') throw new MiniGptError('ERR_ARGUMENT', '--host: expected a name or an address, found ""');
  const server = createServer();
  try {
    // without a port of the user's, the page takes any where the usual one is taken
    server.listen(port === true ? 0 : port, host);
    await once(server, 'listening');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EADDRINUSE')
      throw new MiniGptError(
        'ERR_NETWORK',
        `--watch: expected a free port (0: any), found ${port} of ${host} taken by another program`,
        { cause: error },
      );
    if (code === 'EACCES')
      throw new MiniGptError(
        'ERR_NETWORK',
        `--watch: expected a port that this user may listen on (0: any), found ${port}`,
        { cause: error },
      );
    if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND' || code === 'EAI_AGAIN')
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `--host: expected a name or an address of this machine, found ${JSON.stringify(host)}`,
        { cause: error },
      );
    throw error;
  } finally {
    if (server.listening) {
      server.close();
      await once(server, 'close');
    }
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
