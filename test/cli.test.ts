// The command line's grammar: help, exit codes, advice, and errors that machines can read. Hardly anything here loads a model.
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { minigpt4, script } from './command.js';

const cli = suite('cli');
const folder = mkdtempSync(join(tmpdir(), 'minigpt4-cli-'));
cli.after(() => rmSync(folder, { recursive: true, force: true }));

const commands = ['describe', 'chat', 'convert', 'inspect', 'verify', 'bench'];

cli('help lists every command and ends well', async () => {
  const { code, stdout } = await minigpt4(['--help']);
  assert.is(code, 0);
  for (const command of commands) assert.match(stdout, new RegExp(`^  ${command}\\b`, 'm'));
  assert.match(stdout, /Examples:\n/);
});

for (const command of commands) {
  cli(`help of ${command} has examples`, async () => {
    const { code, stdout, stderr } = await minigpt4([command, '--help']);
    assert.is(code, 0, stderr);
    assert.match(stdout, new RegExp(`^Usage: minigpt4 ${command} `));
    assert.match(stdout, new RegExp(`Examples:\\n  \\$ .*minigpt4 ${command}`));
  });
}

cli("the version is the package's", async () => {
  const { code, stdout } = await minigpt4(['--version']);
  assert.is(code, 0);
  assert.match(stdout, /^\d+\.\d+\.\d+\n$/);
});

cli('describe has the flags that others script against', async () => {
  const { stdout } = await minigpt4(['describe', '--help']);
  for (const flag of [
    'model',
    'llm',
    'projection',
    'prompt',
    'template',
    'temperature',
    'top-p',
    'top-k',
    'seed',
    'max-tokens',
    'lookup',
    'threads',
    'max-pixels',
    'json',
  ]) {
    assert.match(stdout, new RegExp(`^  --${flag}\\b`, 'm'));
  }
});

/** [words, what the complaint says]; all are wrong use. */
const wrong: [string[], RegExp][] = [
  [[], /expected a command/],
  [['descirbe', 'a.jpg'], /unknown command 'descirbe'\n\(Did you mean describe\?\)/],
  [['describe'], /missing required argument 'picture'/],
  [['describe', 'a.jpg', '--temprature', '1'], /unknown option '--temprature'\n\(Did you mean --temperature\?\)/],
  [['describe', 'a.jpg', '--max_tokens=3'], /unknown option '--max_tokens=3'\n\(Did you mean --max-tokens\?\)/],
  [['describe', 'a.jpg', '--xyzzy'], /unknown option '--xyzzy'\n\(--help/],
  [['describe', 'a.jpg', '--temperature', 'hot'], /'--temperature <n>' argument 'hot' is invalid. Expected a number/],
  [['describe', 'a.jpg', '--temperature'], /argument missing/],
  [['describe', 'a.jpg', '--top-p', '3'], /describe: option --top-p: expected a number above 0 and at most 1, found 3/],
  [
    ['describe', 'a.jpg', '--max-tokens', '0'],
    /option --max-tokens: expected a whole number from 1 to 16777216, found 0/,
  ],
  [['describe', 'a.jpg', '--threads', '0.5'], /option --threads: expected a whole number from 1 to 1024, found 0.5/],
  [['describe', 'a.jpg', '--prompt', ' '], /option --prompt: expected a text that is not empty, found " "/],
  [['convert', '--typ', 'q8_0'], /unknown option '--typ'[^]*Did you mean --type\?/i],
  [['convert', '--type', 'q8_0'], /--out: expected the file to write/],
  [['describe', 'a.jpg', '--template', 'vicuna1'], /expected one of vicuna0, .*did you mean vicuna0\?/],
  [['chat', '--seed', '-1'], /option --seed: expected a whole number from 0 to 18446744073709551615, found -1/],
  [['describe', 'a.jpg', '--seed', '18446744073709551616'], /to 18446744073709551615, found 18446744073709551616$/m],
  [
    ['describe', 'a.jpg', '--device', 'cpuu'],
    /option --device: expected 'auto', .* found "cpuu" \(did you mean cpu\?\)/,
  ],
  [
    ['describe', 'a.jpg', '--gpu-layers', '99'],
    /describe: --gpu-layers is 99, but --device is 'cpu' where it is left out: expected 0, or a GPU as --device/,
  ],
  [
    ['bench', '--device', 'cpu', '--vision-device', 'gpu'],
    /--vision-device is 'gpu', but --device is 'cpu': expected 'cpu'/,
  ],
  [['verify', folder, '--gpu-memory', '1e9'], /verify: --gpu-memory is 1000000000, but --device is 'cpu'/],
  [['chat', '--device', 'gpu:1'], /found "gpu:1" \(did you mean cuda:1\?\)/],
  [['chat', '--max-pixels', '0'], /option --max-pixels: expected a whole number from 1, found 0/],
  [['bench', '--prompt', '64'], /bench: option --prompt: expected --model or --llm beside it/],
  [['bench', '--kv-type', 'f32'], /bench: option --kv-type: expected --model or --llm beside it/],
  [['bench', '--device', 'cuda'], /bench: option --device: expected --model or --llm beside it/],
  [
    ['bench', '--model', 'a.gguf', '--quick'],
    /option --quick: expected synthetic models, found --model or --llm beside/,
  ],
  [['bench', '--models', '7b,8b'], /--models: expected some of .*7b.*, found "8b" \(did you mean 7b\?\)/],
  [
    ['bench', '--models', '7b:q4_1'],
    /--models: expected some of q4_0, q8_0, q4_k_m, found "q4_1" \(did you mean q4_0\?\)/,
  ],
  [['bench', '--models', ''], /--models: expected some of .*, found ""/],
  [['bench', '--level', 'scaler'], /--level: expected some of scalar.*found "scaler" \(did you mean scalar\?\)/],
  [['bench', '--model', 'a.gguf', '--level', 'avx2,amx'], /--level: expected one level .*, found "avx2,amx"/],
  [['bench', '--out', ''], /bench: option --out: expected a file or a folder, found no name/],
  [['bench', '--peer-folder', 'a'], /--peer-folder: expected --peers beside it/],
  [['bench', '--threads', '0'], /option --threads: expected a whole number from 1 to 1024, found 0/],
  [['chat', 'a.jpg'], /too many arguments/],
  [['train', 'a.yaml', '--gpu-memory', 'all'], /'--gpu-memory <bytes>' argument 'all' is invalid. Expected a/],
  [['train', 'a.yaml', '--watch', '65536'], /'--watch \[port\]' argument '65536' is invalid. Expected a port/],
  [['train', 'a.yaml', '--watch', '--host', 'none.invalid'], /--host: expected a name or an address of this machine/],
  [['train', 'a.yaml', '--host', '0.0.0.0'], /--host: expected --watch beside it/],
  [['train', 'a.yaml', '--output', ''], /train: option --output: expected the path of a folder, found ""/],
  [['export', 'a.pth', '--pth', 'b', '--gguf', './b'], /--gguf: expected another file than that of --pth, found .\/b/],
  [['bench', '--repeat', '0'], /option --repeat: expected a whole number from 1, found 0/],
  [['verify'], /missing required argument 'dir'/],
  [['verify', folder, '--type', 'q8-0'], /Expected one of f32, .*Did you mean q8_0\?/],
];
for (const [words, complaint] of wrong) {
  cli(`wrong use: minigpt4 ${words.join(' ').replace(folder, 'DIR')}`, async () => {
    const { code, stdout, stderr } = await minigpt4(words);
    assert.is(code, 2, stderr);
    assert.match(stderr, complaint);
    assert.is(stdout, '');
  });
}

cli('wrong use with --json is one JSON line', async () => {
  for (const words of [
    ['describe', 'a.jpg', '--json', '--top-p', '3'],
    ['describe', 'a.jpg', '--json', '--nonsense'],
  ]) {
    const { code, stdout } = await minigpt4(words);
    assert.is(code, 2);
    const { error } = JSON.parse(stdout) as { error: { code: string; message: string } };
    assert.is(error.code, 'ERR_ARGUMENT');
    assert.ok(error.message.length > 10);
    assert.is(stdout.trimEnd().split('\n').length, 1);
  }
});

cli('a missing model and a directory without a fixture are failures, not wrong use', async () => {
  const missing = join(folder, 'missing.gguf');
  const plain = await minigpt4(['describe', 'a.jpg', '--model', missing]);
  assert.is(plain.code, 1);
  assert.match(plain.stderr, /missing\.gguf/);
  assert.is(plain.stderr.trimEnd().split('\n').length, 1, plain.stderr);
  const json = await minigpt4(['describe', 'a.jpg', '--model', missing, '--json']);
  assert.is(json.code, 1);
  assert.is((JSON.parse(json.stdout) as { error: { code: string } }).error.code, 'ERR_FILE_NOT_FOUND');
  assert.is(json.stderr, '');
  const verify = await minigpt4(['verify', folder]);
  assert.is(verify.code, 1);
  assert.match(verify.stderr, /expected a language model .* found none/);
});

cli('a port that is taken ends a run before anything is loaded or made', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const output = join(folder, 'run');
  const { code, stderr } = await minigpt4(['train', 'none.yaml', '--watch', String(port), '--output', output]);
  server.close();
  assert.is(code, 1, stderr);
  assert.match(stderr, /^minigpt4: --watch: expected a free port \(0: any\), found \d+ of 127\.0\.0\.1 taken/);
  assert.not.ok(existsSync(output));
});

cli('a record that has no place ends a benchmark before it begins', async () => {
  const { code, stderr } = await minigpt4(['bench', '--models', 'tiny', '--out', join(folder, 'none', 'bench.json')]);
  assert.is(code, 1, stderr);
  assert.match(stderr, /^minigpt4: --out: expected a file or a folder that can be written, found .*none/);
  writeFileSync(join(folder, 'a-file'), '');
  const inFile = await minigpt4(['bench', '--models', 'tiny', '--out', join(folder, 'a-file', '/')]);
  assert.is(inFile.code, 1, inFile.stderr);
  assert.match(inFile.stderr, /^minigpt4: the folder .*a-file\/ cannot be made: .*/);
});

cli('a level that MINIGPT4_CPU_LEVEL names wrongly is told by that name', async () => {
  const { code, stderr } = await minigpt4(['bench', '--models', 'tiny'], { env: { MINIGPT4_CPU_LEVEL: 'avx3' } });
  assert.is(code, 2, stderr);
  assert.match(stderr, /MINIGPT4_CPU_LEVEL: expected one of scalar.*, found "avx3"/);
});

cli('pictures that are not there make no folder', async () => {
  const out = join(folder, 'align');
  const { code, stderr } = await minigpt4(['data', 'align', join(folder, 'nothing'), '--out', out]);
  assert.is(code, 1, stderr);
  assert.not.ok(existsSync(out));
});

/** Ends by the signals that its own text sends itself, or says so at its end. */
const signalled = (text: string) =>
  script(`
    const { interruptSignal } = await import(lib + 'cli/terminal.ts');
    const wait = (ms) => new Promise((done) => setTimeout(done, ms));
    const signal = interruptSignal();
    ${text}
    await wait(300);
    console.log('alive', signal.aborted);`);

cli('one request to end may come twice', async () => {
  const { code, stdout, stderr } = await signalled(`
    process.kill(process.pid, 'SIGTERM'); await wait(50);
    process.kill(process.pid, 'SIGTERM'); process.kill(process.pid, 'SIGHUP');`);
  assert.is(code, 0, stderr);
  assert.is(stdout, 'alive true\n');
});

cli('a second request of another kind ends the process', async () => {
  const { signal, stdout } = await signalled(`
    process.kill(process.pid, 'SIGINT'); await wait(700); process.kill(process.pid, 'SIGTERM');`);
  assert.is(signal, 'SIGTERM');
  assert.is(stdout, '');
});

cli('a run that fails says why once, in the words of a configuration', async () => {
  const picture = sharp({ create: { width: 40, height: 40, channels: 3, background: '#0a0' } });
  await picture.jpeg().toFile(join(folder, 'green.jpg'));
  writeFileSync(join(folder, 'pairs.csv'), 'path,caption\ngreen.jpg,Green.\n');
  const config = join(folder, 'fails.yaml');
  writeFileSync(
    config,
    JSON.stringify({
      datasets: { pairs: { batch_size: 1, build_info: { storage: join(folder, 'pairs.csv') } } },
      run: {
        ...{ init_lr: 0.001, min_lr: 0, max_epoch: 1, iters_per_epoch: 1, max_pixels: 100, num_workers: 0 },
        ...{ lr_sched: 'linear_warmup_cosine_lr', output_dir: join(folder, 'fails') },
      },
    }),
  );
  const { code, stderr } = await minigpt4(['train', config]);
  assert.is(code, 1, stderr);
  assert.is(stderr.match(/is too large: .*run\.max_pixels raises the limit/g)?.length, 1, stderr);
  assert.match(stderr, /^stopped: /m);
  assert.not.match(stderr, /--max-pixels/);
});

cli.run();
