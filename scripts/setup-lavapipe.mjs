// Unpacks Mesa's software Vulkan into .lavapipe/ where the installed one is older than 25, which WebGPU needs: from the backports of
// the same Debian, over the mirror that apt knows, without root. It is what the tests run WebGPU on, in half precision too. Where it
// cannot be had, they run on what there is and say what they skipped.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const NEEDED = 25;
// biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg's own syntax
const VERSION_FIELD = '${Version}';
const PACKAGES = ['mesa-vulkan-drivers', 'mesa-libgallium', 'libdrm2', 'libdrm-amdgpu1', 'libdrm-intel1'];
const target = join(import.meta.dirname, '..', '.lavapipe');
const icd = join(target, 'lvp_icd.json');

if (existsSync(icd)) process.exit(0);
const installed = run('dpkg-query', ['--show', '--showformat', VERSION_FIELD, 'mesa-vulkan-drivers']) ?? '';
if (Number.parseInt(installed, 10) >= NEEDED) process.exit(0);
const release = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
const codename = /^VERSION_CODENAME=(\w+)$/m.exec(release)?.[1];
// The package brings the libraries that the newer one needs, too.
if (installed === '' || !/^ID=debian$/m.test(release) || codename === undefined)
  giveUp('no mesa-vulkan-drivers of Debian');
const mirror = run('apt-get', ['indextargets', '--format', '$(REPO_URI) $(CODENAME) $(COMPONENT)'])
  ?.split('\n')
  .map((line) => line.split(' '))
  .find(([, name, component]) => name === codename && component === 'main')?.[0];
if (mirror === undefined) giveUp(`apt knows no mirror of ${codename}`);

const work = mkdtempSync(join(tmpdir(), 'darkroom-lavapipe-'));
try {
  mkdirSync(join(work, 'lists', 'partial'), { recursive: true });
  writeFileSync(join(work, 'sources.list'), `deb ${mirror} ${codename}-backports main\n`);
  const options = [
    `Dir::Etc::sourcelist=${work}/sources.list`,
    'Dir::Etc::sourceparts=-',
    `Dir::State::lists=${work}/lists`,
  ];
  const apt = (...args) => run('apt-get', ['-qq', ...options.flatMap((option) => ['-o', option]), ...args], work);
  if (apt('update') === undefined || apt('download', ...PACKAGES) === undefined)
    giveUp(`${codename} has no backports of it`);
  const unpacked = readdirSync(work)
    .filter((name) => name.endsWith('.deb'))
    .every((name) => run('dpkg-deb', ['-x', join(work, name), target]) !== undefined);
  if (!unpacked) giveUp('its packages do not unpack');
  const libraries = join(
    target,
    'usr/lib',
    readdirSync(join(target, 'usr/lib')).find((name) => name.includes('-linux-')) ?? '',
  );
  const description = {
    file_format_version: '1.0.0',
    ICD: { api_version: '1.4.305', library_path: join(libraries, 'libvulkan_lvp.so') },
  };
  writeFileSync(icd, `${JSON.stringify(description)}\n`);
  console.log(`unpacked Mesa's software Vulkan into ${target}`);
} finally {
  rmSync(work, { recursive: true });
}

function run(program, args, cwd) {
  const { status, stdout } = spawnSync(program, args, { encoding: 'utf8', cwd, stdio: ['ignore', 'pipe', 'ignore'] });
  return status === 0 ? stdout : undefined;
}

function giveUp(reason) {
  console.log(`setup:lavapipe: ${reason}; the tests use the software Vulkan that there is`);
  process.exit(0);
}
