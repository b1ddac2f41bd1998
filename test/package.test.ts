// The packed tarball in an empty project: no compiler on the PATH, no install scripts, and it describes a picture.
import { execFileSync, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { read, root } from './checkout.js';

/** npm's own program, to be started by node without a shell. */
function npmProgram(): string {
  const given = process.env['npm_execpath'];
  if (given !== undefined && /npm-cli\.js$/.test(given)) return given;
  const found = process.env['PATH']!.split(delimiter)
    .map((folder) => join(folder, 'npm'))
    .find((path) => existsSync(path));
  assert.ok(found, 'npm is not on the PATH');
  return realpathSync(found);
}

/** The environment without what an outer npm adds of this checkout; the registry, cache and proxies stay as they are set. */
function environment(path: string): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(
    ([name]) =>
      !/^npm_(package|lifecycle|execpath|node_execpath|command)|^npm_config_(local_prefix|prefix|dir|node_gyp)$|^INIT_CWD$|^NODE_PATH$|^MINIGPT4_/i.test(
        name,
      ),
  );
  return { ...Object.fromEntries(kept), PATH: path };
}

interface Stage {
  folder: string;
  /** Only node and npm's own shell are on it. */
  path: string;
  tarball: string;
  contents: string[];
  project: string;
}

const packed = suite<Partial<Stage>>('package', {});
const binaries = join('prebuilds', `${process.platform}-${process.arch}`);

packed.before((stage) => {
  stage.folder = mkdtempSync(join(tmpdir(), 'minigpt4-package-'));
  stage.path = join(stage.folder, 'bin');
  mkdirSync(stage.path);
  symlinkSync(process.execPath, join(stage.path, 'node'));
  stage.project = join(stage.folder, 'project');
  mkdirSync(stage.project);
  writeFileSync(join(stage.project, 'package.json'), '{ "private": true, "type": "module" }');
});

packed.after((stage) => rmSync(stage.folder!, { recursive: true, force: true }));

const plugin = 'libminigpt4_cuda.so';
const cudaBuilt = existsSync(join(root, 'build', 'Release', plugin));

packed('npm run prebuild leaves one binary a platform and libc, and the CUDA plug-in that was built', () => {
  execFileSync(process.execPath, [join(root, 'scripts', 'prebuild.mjs')], { cwd: root, stdio: 'pipe' });
  const libc = process.platform === 'linux' && !('glibcVersionRuntime' in header()) ? 'musl' : 'glibc';
  const names = readdirSync(join(root, binaries)).filter((name) => name.includes(`.${libc}.`));
  assert.equal(names, [`minigpt4.${libc}.node`]);
  assert.equal(
    readdirSync(join(root, binaries)).filter((name) => name.endsWith('.so')),
    cudaBuilt ? [plugin] : [],
  );
  assert.ok(existsSync(join(root, 'build', 'Release', 'minigpt4.node')), 'the checkout lost its own binary');
});

packed('npm pack takes what runs, what builds, and nothing else', (stage) => {
  // what `prepare` would build is there: npm test builds first
  execFileSync(process.execPath, [npmProgram(), 'pack', '--ignore-scripts', '--pack-destination', stage.folder!], {
    cwd: root,
    stdio: 'pipe',
  });
  const name = readdirSync(stage.folder!).find((file) => file.endsWith('.tgz'))!;
  stage.tarball = join(stage.folder!, name);
  stage.contents = execFileSync('tar', ['-tzf', stage.tarball], { encoding: 'utf8' })
    .trim()
    .split('\n')
    .map((path) => path.replace(/^package\//, ''));
  const { contents } = stage;
  for (const needed of [
    'package.json',
    'README.md',
    'LICENSE',
    'CMakeLists.txt',
    'binding.gyp',
    'scripts/cmake.mjs',
    'native/core/error.h',
    'dist/index.js',
    'dist/index.d.ts',
    'dist/cli/main.js',
    'dist/bench/ours.js',
    'dist/train/watch/page/index.html',
    'configs/sample.yaml',
    'configs/prompts/alignment.txt',
    'data/sample/00000.tar',
    'models/README.md',
    'models/example.jpg',
  ]) {
    assert.ok(contents.includes(needed), `${needed} is missing`);
  }
  assert.ok(
    contents.some((path) => /^models\/.*\.gguf$/.test(path)),
    'the embedded model is missing',
  );
  const links = [...read('README.md').matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map((match) => match[1]!);
  assert.equal(
    links.filter((path) => !contents.includes(path)),
    [],
    'README.md links to what is not in the package',
  );
  const foreign = contents.filter((path) =>
    /^(lib|test|bench|out|build|node_modules)\/|\.test\.|^dist\/.*\.map$|^prebuilds\/[^/]+\/(?!libminigpt4_cuda\.so$).*(?<!\.node)$/.test(
      path,
    ),
  );
  assert.equal(foreign, []);
  const perLibc = contents
    .filter((path) => path.endsWith('.node'))
    .map((path) => path.replace(/[^/]*\.(glibc|musl)\.node$/, '$1'));
  assert.is(new Set(perLibc).size, perLibc.length, `two binaries of one libc: ${perLibc.join(', ')}`);
});

packed('installs into an empty project with install scripts off', (stage) => {
  const result = spawnSync(
    process.execPath,
    [npmProgram(), 'install', '--ignore-scripts', '--no-audit', '--no-fund', stage.tarball!],
    {
      cwd: stage.project!,
      env: environment(stage.path!),
      encoding: 'utf8',
    },
  );
  assert.is(result.status, 0, result.stdout + result.stderr);
  assert.not.ok(existsSync(join(stage.project!, 'node_modules', 'cmake-js')), 'a build tool reached the user');
  assert.not.ok(existsSync(join(stage.project!, 'node_modules', 'minigpt4', 'build')), 'something was built');
  copyFileSync(join(root, 'models', 'example.jpg'), join(stage.project!, 'photo.jpg'));
});

packed('its command line describes a picture there', (stage) => {
  const main = join('node_modules', 'minigpt4', 'dist', 'cli', 'main.js');
  const result = spawnSync(process.execPath, [main, 'describe', 'photo.jpg', '--temperature', '0', '--json'], {
    cwd: stage.project!,
    env: environment(stage.path!),
    encoding: 'utf8',
  });
  assert.is(result.status, 0, result.stdout + result.stderr);
  const answer = JSON.parse(result.stdout) as { image: string; text: string; ids: number[] };
  // photo.jpg is scene seen-002 of the miniature world: a large hourglass on orange
  assert.match(answer.text, /\bhourglass\b/);
  assert.ok(answer.ids.length > 5);
});

(cudaBuilt && process.platform === 'linux' ? packed : packed.skip)('its CUDA plug-in is found there', (stage) => {
  const main = join('node_modules', 'minigpt4', 'dist', 'cli', 'main.js');
  const result = spawnSync(process.execPath, [main, 'describe', 'photo.jpg', '--device', 'cuda'], {
    cwd: stage.project!,
    env: environment(stage.path!),
    encoding: 'utf8',
  });
  // a GPU describes the picture; without one the plug-in itself says what is missing of the driver or the device
  if (result.status !== 0) assert.match(result.stderr, /driver/);
  assert.not.match(result.stderr, /plug-in/);
});

packed('its TypeScript interface does', (stage) => {
  const program = `
    import { MiniGPT4 } from 'minigpt4';
    const model = await MiniGPT4.load();
    let streamed = '';
    const run = model.describe('photo.jpg', { temperature: 0 });
    for await (const piece of run) streamed += piece;
    const { text } = await run;
    console.log(JSON.stringify({ streamed, text }));
    await model.close();`;
  const result = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    cwd: stage.project!,
    env: environment(stage.path!),
    encoding: 'utf8',
  });
  assert.is(result.status, 0, result.stdout + result.stderr);
  const { streamed, text } = JSON.parse(result.stdout) as { streamed: string; text: string };
  assert.is(streamed, text);
  assert.match(text, /\bhourglass\b/);
});

packed('without a binary for the platform it says how to get one', (stage) => {
  const installed = join(stage.project!, 'node_modules', 'minigpt4');
  rmSync(join(installed, 'prebuilds'), { recursive: true });
  const settings = { cwd: stage.project!, env: environment(stage.path!), encoding: 'utf8' } as const;
  const use = spawnSync(
    process.execPath,
    [join(installed, 'dist', 'cli', 'main.js'), 'describe', 'photo.jpg'],
    settings,
  );
  assert.is(use.status, 1);
  assert.match(use.stderr, 'node_modules/minigpt4/scripts/cmake.mjs');
  const build = spawnSync(process.execPath, [join(installed, 'scripts', 'cmake.mjs')], settings);
  assert.is(build.status, 1);
  assert.match(build.stderr, 'npm install --save-dev cmake-js node-addon-api node-api-headers');
});

function header(): Record<string, unknown> {
  return (process.report.getReport() as unknown as { header: Record<string, unknown> }).header;
}

const objdump = process.platform === 'linux' && spawnSync('objdump', ['--version']).status === 0;

(objdump ? packed : packed.skip)(
  'the binary asks for no C++ library, and for no newer glibc than README.md says',
  () => {
    const needs = execFileSync('objdump', ['-p', join(root, binaries, 'minigpt4.glibc.node')], { encoding: 'utf8' });
    assert.not.match(needs, /NEEDED\s+libstdc\+\+/); // libgcc_s comes with Node itself
    const newest = [...needs.matchAll(/GLIBC_2\.(\d+)/g)].reduce((most, match) => Math.max(most, Number(match[1])), 0);
    const own = Number(String(header()['glibcVersionRuntime']).split('.')[1]);
    const stated = Number(read('README.md').match(/glibc 2\.(\d+)/)?.[1]);
    assert.ok(newest > 0 && newest <= own, `GLIBC_2.${newest}`);
    // releases are built on Debian 12 (glibc 2.36); a newer system's headers may ask for more
    if (own <= 36) assert.ok(newest <= stated, `asks for GLIBC_2.${newest}, README.md says 2.${stated}`);
  },
);

packed.run();
