//! The files we give, and the folder they go to.

use super::*;

#[test]
fn every_file_in_config_loads_as_it_is() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let loaded = read(&text).unwrap_or_else(|e| panic!("{}: {e:#?}", path.display()));
        assert!(loaded.warnings.is_empty(), "{}: {:?}", path.display(), loaded.warnings);
        seen += 1;
    }
    assert!(seen >= 3, "{seen}");
}

#[test]
fn the_example_without_its_comment_signs_loads_and_names_every_key() {
    let is_key = |line: &str| {
        let word = line.trim_start_matches(|c: char| c.is_ascii_lowercase() || c == '_');
        line.starts_with('[') || word.len() < line.len() && word.starts_with(" = ")
    };
    let text: String = home::EXAMPLE
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    let fake = Fake { vars: [("PROD_PASSWORD", "x"), ("HOME", "/home/r")].into(), ..Fake::default() };
    let loaded = read_with(&text, &fake).unwrap_or_else(|e| panic!("{e:#?}\n{text}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!((loaded.settings.connections.len(), loaded.settings.replicate.len()), (2, 2));
    // A key that is read but not in the example is one nobody can find.
    let sources = [
        include_str!("../connection.rs"),
        include_str!("../repack.rs"),
        include_str!("../replicate.rs"),
        include_str!("../resolve.rs"),
    ];
    let reading =
        ["text", "integer", "boolean", "switch", "choice", "parsed", "list", "name_text", "path_value"];
    let mut keys = 0;
    for source in sources {
        for call in reading {
            for part in source.split(&format!(".{call}(")).skip(1) {
                let Some(key) = part.trim_start().strip_prefix('"').and_then(|p| p.split('"').next()) else {
                    continue;
                };
                assert!(home::EXAMPLE.contains(&format!("\n#{key} = ")), "the example lacks {key}");
                keys += 1;
            }
        }
    }
    assert!(keys > 35, "{keys}");
}

mod home_folder {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn it_is_made_private_and_what_is_there_is_kept() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("deep/home");
        let home = Home::locate(&Variable(dir.clone())).unwrap();
        home.ensure().unwrap();
        for folder in ["", "config", "config/table_conf", "logs", "pid", "spool"] {
            assert_eq!(mode(&dir.join(folder)), 0o700, "{folder}");
        }
        assert_eq!(std::fs::read_to_string(home.example()).unwrap(), home::EXAMPLE);
        assert!(home.write_example(&home.default_file()).unwrap());
        assert_eq!(mode(&home.default_file()), 0o600);
        std::fs::write(home.default_file(), "mine").unwrap();
        assert!(!home.write_example(&home.default_file()).unwrap());
        assert_eq!(std::fs::read_to_string(home.default_file()).unwrap(), "mine");
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o750)).unwrap();
        home.ensure().unwrap();
        assert_eq!(mode(&dir), 0o750);
    }

    #[test]
    fn config_is_a_name_or_a_path() {
        let home = Home::locate(&Variable("/h".into())).unwrap();
        for (config, file, name) in [
            ("default", "/h/config/default.toml", "default"),
            ("prod.toml", "/h/config/prod.toml", "prod"),
            ("./prod.toml", "./prod.toml", "prod"),
            ("/etc/repcloud/eu.toml", "/etc/repcloud/eu.toml", "eu"),
        ] {
            assert_eq!(home.config_file(config), (PathBuf::from(file), name.to_owned()));
        }
        let none = Fake::default();
        assert!(matches!(Home::locate(&none), Err(ConfigError::NoHome)));
        let user = Fake { vars: [("HOME", "/u"), ("REPCLOUD_HOME", "")].into(), ..Fake::default() };
        assert_eq!(Home::locate(&user).unwrap().dir(), Path::new("/u/.repcloud"));
    }

    struct Variable(PathBuf);

    impl Environment for Variable {
        fn var(&self, name: &str) -> Option<String> {
            (name == "REPCLOUD_HOME").then(|| self.0.to_string_lossy().into_owned())
        }

        fn read(&self, path: &Path) -> io::Result<String> {
            std::fs::read_to_string(path)
        }

        fn passfile_password(&self, _: Login<'_>) -> Result<Option<SecretString>, String> {
            Ok(None)
        }
    }
}
