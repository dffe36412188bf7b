// The way from JupyterLab and Jupyter Notebook to the page at /sessions: in the launcher, the
// command palette and the View menu. It is what a build would make, written by hand: a container of
// module federation, which is given the packages that the application shares.

(() => {
  const NAME = "jupyter_sessions_ext";
  const command = "jupyter-sessions:open";
  const svgstr =
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24">' +
    '<g fill="none" stroke="#f37626" stroke-width="2" stroke-linecap="round">' +
    '<path d="M4 9.5C5.3 6 8.4 4 12 4s6.7 2 8 5.5M4 14.5C5.3 18 8.4 20 12 20s6.7-2 8-5.5"/>' +
    '<circle cx="12" cy="12" r="2.2" fill="#f37626" stroke="none"/></g></svg>';
  let shared = {};

  const ways = [
    [
      "@jupyterlab/launcher",
      "ILauncher",
      (launcher) => launcher.add({ command, category: "Other" }),
    ],
    [
      "@jupyterlab/apputils",
      "ICommandPalette",
      (palette) => palette.addItem({ command, category: "Kernel Operations" }),
    ],
    ["@jupyterlab/mainmenu", "IMainMenu", (menu) => menu.viewMenu.addGroup([{ command }], 90)],
  ];

  /** Return a package that the application shares, or nothing of it if it does not. */
  async function load(name) {
    const versions = Object.values(shared[name] ?? {});
    const version = versions.find(({ loaded }) => loaded) ?? versions[0];
    return version ? (await version.get())() : {};
  }

  async function makePlugin() {
    const found = await Promise.all(
      ways.map(async ([name, token, add]) => [(await load(name))[token], add]),
    );
    const there = found.filter(([token]) => token);
    const { LabIcon } = await load("@jupyterlab/ui-components");
    const icon = LabIcon && new LabIcon({ name: `${NAME}:sessions`, svgstr });
    return {
      id: `${NAME}:page`,
      description: "Opens the page that shows and steers all sessions.",
      autoStart: true,
      optional: there.map(([token]) => token),
      activate: ({ commands, serviceManager }, ...services) => {
        const { baseUrl } = serviceManager.serverSettings;
        commands.addCommand(command, {
          label: (args) => (args.isPalette ? "Show All Sessions of the Server" : "Sessions"),
          caption: "All sessions of this server, live and dormant",
          icon: (args) => (args.isPalette ? undefined : icon),
          execute: () => window.open(`${baseUrl}sessions`, "jupyter-sessions"),
        });
        services.forEach((service, at) => service && there[at][1](service));
      },
    };
  }

  (window._JUPYTERLAB ??= {})[NAME] = {
    init: (scope) => {
      shared = scope;
    },
    get: async () => {
      const plugin = await makePlugin();
      return () => ({ __esModule: true, default: plugin });
    },
  };
})();
