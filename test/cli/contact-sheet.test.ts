import { describe, expect, it } from 'vitest';
import { contactSheet } from '../../src/cli/demo/contact-sheet.js';

const entry = {
  group: 'a <group>',
  file: 'a folder/0 "x"&y.png',
  prompt: '<script>alert("1")</script> & a "red" circle',
  parameters: [['negative prompt', '<b>']] as const,
  seconds: 0.25,
};

describe('contactSheet', () => {
  it('writes prompts and names as text and not as HTML', () => {
    const sheet = contactSheet('a & b', '<i>', [entry]);
    expect(sheet).not.toMatch(/<script|<b>|<i>|<group>/);
    expect(sheet).toContain('alt="&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; a &quot;red&quot; circle"');
    expect(sheet).toContain('negative prompt &lt;b&gt; · 0.3 s');
    expect(sheet).toContain('src="a%20folder/0%20%22x%22%26y.png"');
  });

  it('plays videos, and puts the entries of a group together', () => {
    const other = { ...entry, group: 'other', file: 'clip.mp4' };
    const sheet = contactSheet('demo', '', [entry, other, { ...entry, file: 'last.png' }]);
    expect(sheet).toContain('<video src="clip.mp4" controls loop muted></video>');
    expect(sheet.match(/<h2>/g)).toHaveLength(2);
    expect(sheet.indexOf('last.png')).toBeLessThan(sheet.indexOf('clip.mp4'));
  });
});
