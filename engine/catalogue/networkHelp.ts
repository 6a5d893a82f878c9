/** What to change when the network does not work: VS Code's users have settings, others variables. */

export type Environment = Readonly<Record<string, string | undefined>>;

export function places(env: Environment = process.env) {
  const editor = env['HEARTH_CLIENT'] === 'vscode';
  return {
    proxy: editor ? "Change VS Code's setting http.proxy." : 'Change HTTPS_PROXY or HTTP_PROXY.',
    certificates: editor
      ? 'Change the setting hearth.remote.certificates.'
      : 'Change HEARTH_CERTIFICATES or NODE_EXTRA_CA_CERTS.',
    token: editor ? 'run the command Hearth: Set the Hugging Face Token.' : 'set HF_TOKEN.',
    trust: editor
      ? 'name its certificate file in the setting hearth.remote.certificates'
      : 'name its certificate file in HEARTH_CERTIFICATES',
  };
}

/** What a failed check of a certificate means and what helps; undefined for other failures. */
export function certificateProblem(code: unknown): string | undefined {
  if (typeof code !== 'string') return undefined;
  if (code === 'CERT_HAS_EXPIRED') return 'its certificate has expired. Its owner has to renew it.';
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return 'its certificate is for another host. Check the address, and whether something stands in between.';
  }
  if (!/CERT|SELF_SIGNED|UNABLE_TO_(VERIFY|GET_ISSUER)/.test(code)) return undefined;
  return `this computer does not trust its certificate (${code}). If you do, ${places().trust}.`;
}
